// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include "core/format.h"
#include "models/recogniser.h"
#include "models/resmlp/resmlp.h"

namespace weft::resmlp {
namespace {

constexpr std::string_view kTokens = "blocks.0.attn.weight";  // [T,T]
constexpr std::string_view kProjection = "patch_embed.proj.weight";

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  const auto layout = Layout::find(tensors, Config::kFamily, {kTokens, kProjection, "blocks.0.norm1.alpha"});
  if (!layout) return std::nullopt;
  Recogniser<Config> r(*layout, overrides);
  r.found_extent(&Config::embed_dim, kProjection, 4, 0);
  r.found_extent(&Config::in_chans, kProjection, 4, 1);
  r.found_extent(&Config::patch_size, kProjection, 4, 2);
  r.found_depth("blocks", "attn.weight");
  r.assume_img_size(kTokens, layout->extent(kTokens, 2, 1));
  r.found_classes("head.weight");
  r.assumed(&Config::init_scale, 1e-4, "leaves no trace; matters to new models only");
  return r.done(layout->renamed(""));
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& /*tensors*/) {
  if (system != "resmlp") return std::nullopt;
  Config config;
  Json options = official_options(model, Config::kFamily, {"input", "drop_rate", "drop_path_rate"});
  number_to_list(options, "img_size", 2);
  config_from_json(options, config, Config::kFamily);
  return config;
}

}  // namespace weft::resmlp
