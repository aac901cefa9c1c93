// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include "core/format.h"
#include "models/mixer/mixer.h"
#include "models/recogniser.h"

namespace weft::mixer {
namespace {

constexpr std::string_view kProjection = "stem.proj.weight";
constexpr std::string_view kTokenHidden = "blocks.0.mlp_tokens.fc1.weight";  // [hidden,T]
constexpr std::string_view kChannelHidden = "blocks.0.mlp_channels.fc1.weight";

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  const auto layout = Layout::find(tensors, Config::kFamily, {kTokenHidden, kChannelHidden, kProjection});
  if (!layout) return std::nullopt;
  Recogniser<Config> r(*layout, overrides);
  r.found_extent(&Config::embed_dim, kProjection, 4, 0);
  r.found_extent(&Config::in_chans, kProjection, 4, 1);
  r.found_extent(&Config::patch_size, kProjection, 4, 2);
  r.found_depth("blocks", "mlp_tokens.fc1.weight");
  const double channels = r.config().embed_dim;
  r.found(&Config::mlp_ratio,
          {layout->extent(kTokenHidden, 2, 0) / channels, layout->extent(kChannelHidden, 2, 0) / channels},
          fmt::format("shapes of {} and {}", layout->in_file(kTokenHidden), layout->in_file(kChannelHidden)));
  r.assume_img_size(kTokenHidden, layout->extent(kTokenHidden, 2, 1));
  r.found_classes("head.weight");
  return r.done(layout->renamed(""));
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& /*tensors*/) {
  if (system != "mlp-mixer") return std::nullopt;
  Config config;
  Json options = official_options(model, Config::kFamily, {"input", "drop_rate", "proj_drop_rate", "drop_path_rate"});
  number_to_list(options, "img_size", 2);
  number_to_list(options, "mlp_ratio", 2);
  config_from_json(options, config, Config::kFamily);
  return config;
}

}  // namespace weft::mixer
