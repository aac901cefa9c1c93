// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include <algorithm>
#include <cmath>

#include "core/format.h"
#include "models/recogniser.h"
#include "models/swin/swin.h"

namespace weft::swin {
namespace {

constexpr std::string_view kTable = "attn.relative_position_bias_table";
constexpr std::string_view kOffsets = "attn.relative_coords_table";
constexpr std::string_view kTemperature = "attn.logit_scale";

std::string in_block(int stage, std::string_view name, int block = 0) {
  return fmt::format("layers.{}.blocks.{}.{}", stage, block, name);
}

void read_stages(const Layout& layout, Recogniser<Config>& r) {
  const bool first = layout.has(in_block(0, kTable));
  r.found(&Config::version, first ? 1 : 2, r.presence_of(in_block(0, kTable)));
  std::vector<int> depths, heads;
  const int stages = layout.count("layers", "blocks.0.norm1.weight");
  for (int i = 0; i < stages; ++i) {
    depths.push_back(layout.count(fmt::format("layers.{}.blocks", i), "norm1.weight"));
    heads.push_back(first ? layout.extent(in_block(i, kTable), 2, 1) : layout.extent(in_block(i, kTemperature), 3, 0));
  }
  r.found(&Config::depths, depths, fmt::format("number of {}", layout.in_file("layers.*.blocks.*")));
  r.found(&Config::num_heads, heads, r.shape_of(fmt::format("layers.*.blocks.0.{}", first ? kTable : kTemperature)));
}

// Side of the windows that the mask [N,w²,w²] of a stage's first shifted block is for; 0 where it is no such mask.
int mask_window(const Layout& layout, int stage) {
  const std::string mask = in_block(stage, "attn_mask", 1);
  const int tokens = layout.extent(mask, 3, 1);
  const int side = static_cast<int>(std::lround(std::sqrt(tokens)));
  return side * side == tokens && layout.extent(mask, 3, 2) == tokens ? side : 0;
}

// Side of a stage's windows, of whose offsets there are (2w − 1)²; 0 when the file does not tell.
int window_of(const Layout& layout, int stage) {
  if (layout.has(in_block(stage, kTable))) {
    const int entries = layout.extent(in_block(stage, kTable), 2, 0);
    int window = 1;
    while ((2 * window - 1) < entries / (2 * window - 1)) ++window;
    return window;
  }
  if (layout.has(in_block(stage, kOffsets))) return (layout.extent(in_block(stage, kOffsets), 4, 1) + 1) / 2;
  return layout.has(in_block(stage, "attn_mask", 1)) ? mask_window(layout, stage) : 0;
}

void read_windows(const Layout& layout, Recogniser<Config>& r) {
  const int window = window_of(layout, 0);
  if (window > 0) {
    const std::string offsets = in_block(0, r.config().version == 1 ? kTable : kOffsets);
    r.found(&Config::window_size, window, r.shape_of(layout.has(offsets) ? offsets : in_block(0, "attn_mask", 1)));
  } else {
    r.assumed(&Config::window_size, 8, fmt::format("{} is absent", layout.in_file(in_block(0, kOffsets))));
  }
  if (r.config().version == 2) {
    r.assumed(&Config::pretrained_window_sizes, std::vector<int>{},
              "no shape tells it; 12,12,12,6 in models that were pretrained with windows of 12");
  }
}

void read_shapes(const Layout& layout, Recogniser<Config>& r) {
  constexpr std::string_view kProjection = "patch_embed.proj.weight";
  r.found_extent(&Config::embed_dim, kProjection, 4, 0);
  r.found_extent(&Config::in_chans, kProjection, 4, 1);
  r.found_extent(&Config::patch_size, kProjection, 4, 2);
  const std::string hidden = in_block(0, "mlp.fc1.weight");
  r.found(&Config::mlp_ratio, static_cast<double>(layout.extent(hidden, 2, 0)) / r.config().embed_dim,
          r.shape_of(hidden));
}

void read_options(Recogniser<Config>& r) {
  r.found_presence(&Config::qkv_bias, in_block(0, r.config().version == 1 ? "attn.qkv.bias" : "attn.q_bias"));
  r.found_presence(&Config::ape, "absolute_pos_embed");
  r.found_presence(&Config::patch_norm, "patch_embed.norm.weight");
  r.found_out_indices();
  r.found_classes("head.weight");
}

// What tells the size of pictures: the position embedding, the mask of the first shifted block, or the windows of the
// last stage, which in the published models are as large as the grid is there.
void read_size(const Layout& layout, Recogniser<Config>& r) {
  constexpr std::string_view kPositions = "absolute_pos_embed";
  const std::int64_t patch = r.config().patch_size;
  if (r.config().is_detection()) {
    if (!layout.has(kPositions)) return r.assumed(&Config::img_size, {224, 224}, "nothing depends on it");
    return r.found_img_size(kPositions);
  }
  const std::string mask = in_block(0, "attn_mask", 1);
  if (r.config().ape) return r.assume_img_size(kPositions, layout.extent(kPositions, 3, 1));
  if (layout.has(mask)) {
    const int count = layout.extent(mask, 3, 0);
    const std::int64_t window = mask_window(layout, 0);
    require<WeightError>(window > 0 && window == window_of(layout, 0), Config::kFamily,
                         "{} must be [N,w²,w²] for windows of {}, got {}", layout.in_file(mask), window_of(layout, 0),
                         layout.tensor(mask)->shape);
    return r.assume_square(layout.square_side(mask, count, r.overridden("img_size")) * window * patch,
                           fmt::format("{} has {} windows, taken as a square", layout.in_file(mask), count));
  }
  const int last = r.config().stages() - 1;
  const int window = std::max(window_of(layout, last), 1);
  r.assume_square((std::int64_t{window} << std::min(last, 8)) * patch,
                  fmt::format("the last stage has windows of {0} x {0}, taken for its grid", window));
}

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  auto layout = Layout::find(tensors, Config::kFamily, {in_block(0, kTable), "patch_embed.proj.weight"});
  if (!layout) layout = Layout::find(tensors, Config::kFamily, {in_block(0, kTemperature), "patch_embed.proj.weight"});
  if (!layout) return std::nullopt;
  Recogniser<Config> r(*layout, overrides);
  read_stages(*layout, r);
  read_shapes(*layout, r);
  read_windows(*layout, r);
  read_options(r);
  read_size(*layout, r);
  return r.done(layout->renamed(""), layout->named({"attn_mask", "relative_position_index", "relative_coords_table"}));
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex&) {
  if (system != "swin" && system != "swinv2" && system != "swin-det") return std::nullopt;
  // Not the network's: what a case was run on, and what only training reads.
  Json options = official_options(model, Config::kFamily,
                                  {"input", "drop_rate", "attn_drop_rate", "drop_path_rate", "frozen_stages",
                                   "use_checkpoint", "fused_window_process"});
  rename_option(options, "pretrain_img_size", "img_size");
  number_to_list(options, "img_size", 2);
  Config config;
  config.version = system == "swinv2" ? 2 : 1;
  if (system == "swin-det") {
    config.num_classes = 0;
    config.out_indices = {0, 1, 2, 3};
  }
  config_from_json(options, config, Config::kFamily);
  return config;
}

}  // namespace weft::swin
