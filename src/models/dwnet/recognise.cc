// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include <algorithm>
#include <array>
#include <cmath>

#include "core/format.h"
#include "models/dwnet/dwnet.h"
#include "models/recogniser.h"

namespace weft::dwnet {
namespace {

constexpr std::string_view kFirst = "attn2conv.conv0.weight";
constexpr std::string_view kStatic = "attn2conv.conv.weight";            // [C,1,k,k]
constexpr std::string_view kDynamic = "attn2conv.conv.conv2.weight";     // [C·k·k,C/4,1,1]
constexpr std::string_view kOfPlaces = "attn2conv.conv.conv2.0.weight";  // [G·k·k,C/4,1,1]
constexpr int kPublishedWindow = 7;

std::string in_stage(int stage, std::string_view name) { return fmt::format("layers.{}.blocks.0.{}", stage, name); }

void read_shapes(const Layout& layout, Recogniser<Config>& r) {
  constexpr std::string_view kProjection = "patch_embed.proj.weight";
  r.found_extent(&Config::embed_dim, kProjection, 4, 0);
  r.found_extent(&Config::in_chans, kProjection, 4, 1);
  r.found_extent(&Config::patch_size, kProjection, 4, 2);
  std::vector<int> depths(static_cast<std::size_t>(layout.count("layers", fmt::format("blocks.0.{}", kFirst))));
  for (std::size_t i = 0; i < depths.size(); ++i) depths[i] = layout.count(fmt::format("layers.{}.blocks", i), kFirst);
  r.found(&Config::depths, depths, fmt::format("number of {}", layout.in_file("layers.*.blocks.*")));
  const std::string hidden = in_stage(0, "mlp.fc1.weight");
  r.found(&Config::mlp_ratio, static_cast<double>(layout.extent(hidden, 2, 0)) / r.config().embed_dim,
          r.shape_of(hidden));
}

// k·k where there are so many taps of square kernels; else 0.
int side_of(int taps) {
  const int side = static_cast<int>(std::lround(std::sqrt(taps)));
  return side * side == taps ? side : 0;
}

// Kernels that come from places: how many there are times k·k is all that shapes tell.
void read_groups(const Layout& layout, Recogniser<Config>& r, const Json& overrides) {
  r.assumed(&Config::window_size, kPublishedWindow,
            fmt::format("{} tells its square times the groups; that of the published models",
                        r.shape_of(in_stage(0, kOfPlaces))));
  int window = kPublishedWindow;
  if (r.overridden("window_size") && overrides["window_size"].is_number_integer()) {
    window = std::clamp(overrides["window_size"].get<int>(), 1, 255);
  }
  std::vector<int> sharing;
  for (int i = 0; i < r.config().stages(); ++i) {
    const int channels = layout.extent(in_stage(i, kFirst), 4, 0);
    const int groups = layout.extent(in_stage(i, kOfPlaces), 4, 0) / (window * window);
    sharing.push_back(groups > 0 ? channels / groups : 0);
  }
  r.found(&Config::inhomo_heads, sharing, fmt::format("{} and window_size", r.shape_of(in_stage(0, kOfPlaces))));
}

void read_kernels(const Layout& layout, Recogniser<Config>& r, const Json& overrides) {
  const std::string of_places = in_stage(0, kOfPlaces);
  const std::string of_pictures = in_stage(0, kDynamic);
  const std::string fixed = in_stage(0, kStatic);
  r.found(&Config::inhomogeneous, layout.has(of_places), r.presence_of(of_places));
  r.found(&Config::dynamic, !layout.has(fixed), r.presence_of(fixed));
  if (r.config().inhomogeneous) return read_groups(layout, r, overrides);
  if (!r.config().dynamic) return r.found_extent(&Config::window_size, fixed, 4, 2);
  const int side = side_of(layout.extent(of_pictures, 4, 0) / std::max(r.config().embed_dim, 1));
  r.found(&Config::window_size, side, r.shape_of(of_pictures));
}

void read_options(Recogniser<Config>& r) {
  r.found_presence(&Config::patch_norm, "patch_embed.norm.weight");
  r.found_out_indices();
  r.found_classes("head.weight");
}

// Only a position embedding has a size.
void read_size(const Layout& layout, Recogniser<Config>& r) {
  constexpr std::string_view kPositions = "absolute_pos_embed";
  r.found_presence(&Config::ape, kPositions);
  if (!r.config().ape) return r.assumed(&Config::img_size, {224, 224}, "nothing depends on it");
  if (r.config().is_detection()) return r.found_img_size(kPositions);
  r.assume_img_size(kPositions, layout.extent(kPositions, 3, 1));
}

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  const auto layout = Layout::find(tensors, Config::kFamily,
                                   {in_stage(0, kFirst), "patch_embed.proj.weight", in_stage(0, "mlp.fc1.weight")});
  if (!layout) return std::nullopt;
  Recogniser<Config> r(*layout, overrides);
  read_shapes(*layout, r);
  read_kernels(*layout, r, overrides);
  read_options(r);
  read_size(*layout, r);
  return r.done(layout->renamed(""), layout->named({"num_batches_tracked"}));
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex&) {
  constexpr std::string_view kDetection = "-det";
  const bool is_detection = system.ends_with(kDetection);
  if (is_detection) system.remove_suffix(kDetection.size());
  constexpr std::array<std::string_view, 3> kSystems = {"dwnet-dw", "dwnet-ddw", "dwnet-iddw"};
  if (std::ranges::find(kSystems, system) == kSystems.end()) return std::nullopt;
  // Not the network's: what a case was run on, and what only training reads.
  Json options = official_options(model, Config::kFamily,
                                  {"input", "drop_rate", "drop_path_rate", "frozen_stages", "use_checkpoint"});
  rename_option(options, "pretrain_img_size", "img_size");
  number_to_list(options, "img_size", 2);
  if (options.contains("inhomo_heads") && options["inhomo_heads"].is_null()) options.erase("inhomo_heads");
  Config config;
  if (is_detection) {
    config.num_classes = 0;
    config.out_indices = {0, 1, 2, 3};
  }
  config_from_json(options, config, Config::kFamily);
  config.inhomogeneous = config.inhomogeneous && config.dynamic;  // as the official code has it
  return config;
}

}  // namespace weft::dwnet
