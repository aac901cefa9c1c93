// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include <algorithm>

#include "core/format.h"
#include "models/recogniser.h"
#include "models/vit/vit.h"

namespace weft::vit {
namespace {

constexpr int kHeadChannels = 64;  // of all published models

void read_shapes(const Layout& layout, Recogniser<Config>& r) {
  constexpr std::string_view kProjection = "patch_embed.proj.weight";
  r.found_extent(&Config::embed_dim, kProjection, 4, 0);
  r.found_extent(&Config::in_chans, kProjection, 4, 1);
  r.found_extent(&Config::patch_size, kProjection, 4, 2);
  r.found_depth("blocks", "attn.qkv.weight");
  constexpr std::string_view kHidden = "blocks.0.mlp.fc1.weight";
  r.found(&Config::mlp_ratio, static_cast<double>(layout.extent(kHidden, 2, 0)) / r.config().embed_dim,
          r.shape_of(kHidden));
}

void read_options(const Layout& layout, Recogniser<Config>& r) {
  r.found_presence(&Config::qkv_bias, "blocks.0.attn.qkv.bias");
  r.found_presence(&Config::class_token, "cls_token");
  r.found_presence(&Config::distilled, "dist_token");
  constexpr std::string_view kMeanNorm = "fc_norm.weight";
  r.found(&Config::global_pool, layout.has(kMeanNorm) ? GlobalPool::kAvg : GlobalPool::kToken,
          r.presence_of(kMeanNorm));
  r.found_classes("head.weight");
}

void assume_heads(Recogniser<Config>& r) {
  const int channels = r.config().embed_dim;
  require<ConfigError>(channels % kHeadChannels == 0 || r.overridden("num_heads"), Config::kFamily,
                       "embed_dim {} is no multiple of {}, the channels of a head in the published models; tell the "
                       "number of heads with num_heads=N",
                       channels, kHeadChannels);
  r.assumed(&Config::num_heads, std::max(channels / kHeadChannels, 1),
            fmt::format("leaves no trace; the published models have {} channels to a head", kHeadChannels));
}

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  const auto layout =
      Layout::find(tensors, Config::kFamily,
                   {"blocks.0.attn.qkv.weight", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"});
  if (!layout) return std::nullopt;
  Recogniser<Config> r(*layout, overrides);
  read_shapes(*layout, r);
  read_options(*layout, r);
  r.assume_img_size("pos_embed", layout->extent("pos_embed", 3, 1) - r.config().prefix_tokens());
  assume_heads(r);
  r.assumed(&Config::norm_eps, 1e-6, "leaves no trace; that of the published models");
  r.assumed(&Config::interpolate_mode, InterpolateMode::kBicubicAntialias,
            "leaves no trace; timm's way, DeiT's own code uses bicubic; matters at other sizes only");
  return r.done(layout->renamed(""));
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors) {
  if (system != "vit" && system != "deit") return std::nullopt;
  Json options = official_options(model, Config::kFamily,
                                  {"input", "dynamic_img_size", "dynamic_img_pad", "drop_rate", "pos_drop_rate",
                                   "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"});
  if (options.contains("pretrained_img_size")) options["img_size"] = options["pretrained_img_size"];
  options.erase("pretrained_img_size");
  number_to_list(options, "img_size", 2);
  Config config;
  config.distilled = system == "deit" && tensors.contains("dist_token");
  config.interpolate_mode = system == "deit" ? InterpolateMode::kBicubic : InterpolateMode::kBicubicAntialias;
  config_from_json(options, config, Config::kFamily);
  return config;
}

}  // namespace weft::vit
