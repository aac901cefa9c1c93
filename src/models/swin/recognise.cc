// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include <algorithm>

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

// Side of a stage's windows, of whose offsets there are (2w − 1)²; 0 when the file does not tell.
int window_of(const Layout& layout, int stage) {
  if (layout.has(in_block(stage, kTable))) {
    const int entries = layout.extent(in_block(stage, kTable), 2, 0);
    int window = 1;
    while ((2 * window - 1) < entries / (2 * window - 1)) ++window;
    return window;
  }
  return layout.has(in_block(stage, kOffsets)) ? (layout.extent(in_block(stage, kOffsets), 4, 1) + 1) / 2 : 0;
}

void read_windows(const Layout& layout, Recogniser<Config>& r) {
  const int window = window_of(layout, 0);
  if (window > 0) {
    r.found(&Config::window_size, window, r.shape_of(in_block(0, r.config().version == 1 ? kTable : kOffsets)));
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

void read_options(const Layout& layout, Recogniser<Config>& r) {
  r.found_presence(&Config::qkv_bias, in_block(0, r.config().version == 1 ? "attn.qkv.bias" : "attn.q_bias"));
  r.found_presence(&Config::ape, "absolute_pos_embed");
  r.found_presence(&Config::patch_norm, "patch_embed.norm.weight");
  std::vector<int> normed;
  for (int i = 0; i < r.config().stages(); ++i) {
    if (layout.has(fmt::format("norm{}.weight", i))) normed.push_back(i);
  }
  r.found(&Config::out_indices, normed,
          fmt::format("{} {}", layout.in_file("norm*.weight"), normed.empty() ? "are absent" : "are there"));
  if (layout.has("head.weight")) {
    r.found_extent(&Config::num_classes, "head.weight", 2, 0);
  } else {
    r.found(&Config::num_classes, 0, fmt::format("no {}: a bare backbone", layout.in_file("head.weight")));
  }
}

// What tells the size of pictures: the position embedding, the mask of the first shifted block, or the windows of the
// last stage, which in the published models are as large as the grid is there.
void read_size(const Layout& layout, Recogniser<Config>& r) {
  constexpr std::string_view kPositions = "absolute_pos_embed";
  const int patch = r.config().patch_size;
  const bool given = r.overridden("img_size");
  const auto square = [&](std::int64_t side, const std::string& reason) {
    const int pixels = static_cast<int>(std::min<std::int64_t>(side, 1 << 24));
    r.assumed(&Config::img_size, {pixels, pixels}, reason);
  };
  if (r.config().is_detection()) {
    if (!layout.has(kPositions)) return r.assumed(&Config::img_size, {224, 224}, "nothing depends on it");
    return r.found(&Config::img_size,
                   {layout.extent(kPositions, 4, 2) * patch, layout.extent(kPositions, 4, 3) * patch},
                   r.shape_of(kPositions));
  }
  const std::string mask = in_block(0, "attn_mask", 1);
  if (r.config().ape) {
    const int count = layout.extent(kPositions, 3, 1);
    return square(std::int64_t{layout.square_side(kPositions, count, given)} * patch,
                  fmt::format("{} has {} positions, taken as a square", layout.in_file(kPositions), count));
  }
  if (layout.has(mask)) {
    const int count = layout.extent(mask, 3, 0);
    return square(std::int64_t{layout.square_side(mask, count, given)} * r.config().window_size * patch,
                  fmt::format("{} has {} windows, taken as a square", layout.in_file(mask), count));
  }
  const int last = r.config().stages() - 1;
  const int window = std::max(window_of(layout, last), 1);
  square((std::int64_t{window} << std::min(last, 8)) * patch,
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
  read_options(*layout, r);
  read_size(*layout, r);
  return r.done(layout->renamed(""), layout->named({"attn_mask", "relative_position_index", "relative_coords_table"}));
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex&) {
  if (system != "swin" && system != "swinv2" && system != "swin-det") return std::nullopt;
  require<ConfigError>(model.is_object(), Config::kFamily, "the official configuration must be a JSON object, got {}",
                       model.type_name());
  Json options = model;
  if (options.contains("pretrain_img_size")) options["img_size"] = options["pretrain_img_size"];
  number_to_list(options, "img_size", 2);
  // Not the network's: what a case was run on, and what only training reads.
  for (const char* name : {"input", "pretrain_img_size", "drop_rate", "attn_drop_rate", "drop_path_rate",
                           "frozen_stages", "use_checkpoint", "fused_window_process"}) {
    options.erase(name);
  }
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
