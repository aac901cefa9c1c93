// Vision Transformer (ViT): Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv:2010.11929; and DeiT:
// Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021,
// arXiv:2012.12877, which is the same network, with a distillation token and a second head in its distilled models.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "models/architecture.h"
#include "ops/interpolate/interpolate.h"

namespace weft::vit {

/// What the head reads. kToken: the class token after the final norm. kAvg: the mean of the patch tokens, normalised
/// after taking it (`fc_norm`, in place of the final norm).
enum class GlobalPool { kToken, kAvg };
constexpr std::array<std::pair<GlobalPool, std::string_view>, 2> enum_names(GlobalPool) {
  return {{{GlobalPool::kToken, "token"}, {GlobalPool::kAvg, "avg"}}};
}

/// Options under timm's names; the defaults are timm's.
struct Config {
  static constexpr std::string_view kFamily = "vit";
  static constexpr std::string_view kBlocks = "blocks.";

  std::array<int, 2> img_size = {224, 224};  // height, width, multiples of patch_size; sizes the positional embedding
  int patch_size = 16;
  int in_chans = 3;
  int num_classes = 1000;  // 0: no head
  int embed_dim = 768;
  int depth = 12;
  int num_heads = 12;    // a divisor of embed_dim
  double mlp_ratio = 4;  // width of the MLP's hidden layer over embed_dim
  bool qkv_bias = true;
  double norm_eps = 1e-6;
  bool class_token = true;
  bool distilled = false;  // DeiT's distillation token and its head; the logits are the mean of both heads'
  GlobalPool global_pool = GlobalPool::kToken;
  /// Of the positional embedding at other sizes: bicubic_antialias as timm does, bicubic as DeiT's fine-tuning does.
  InterpolateMode interpolate_mode = InterpolateMode::kBicubicAntialias;

  static constexpr std::tuple kFields{
      Field{"img_size", &Config::img_size},       Field{"patch_size", &Config::patch_size},
      Field{"in_chans", &Config::in_chans},       Field{"num_classes", &Config::num_classes},
      Field{"embed_dim", &Config::embed_dim},     Field{"depth", &Config::depth},
      Field{"num_heads", &Config::num_heads},     Field{"mlp_ratio", &Config::mlp_ratio},
      Field{"qkv_bias", &Config::qkv_bias},       Field{"norm_eps", &Config::norm_eps},
      Field{"class_token", &Config::class_token}, Field{"distilled", &Config::distilled},
      Field{"global_pool", &Config::global_pool}, Field{"interpolate_mode", &Config::interpolate_mode},
  };
  bool operator==(const Config&) const = default;

  /// Tokens before those of the patches.
  int prefix_tokens() const { return (class_token ? 1 : 0) + (distilled ? 1 : 0); }
  /// Width of the MLP's hidden layer.
  int hidden() const;
};

/// Throws ConfigError that names every value out of range.
void validate(const Config& config);

/// Builds backbone and head; `image` is [B,in_chans,H,W]. Sides that are no multiples of the patch are padded with
/// zeros at the bottom and the right, as timm's dynamic_img_pad does (timm refuses them without it). Maps hold the
/// patch tokens alone, after the final norm for the last layer; `pooled` is what the (first) head reads.
ModelValues build(Graph& graph, Value image, const Config& config, std::span<const int> layers);

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides);
/// From the arguments of timm's VisionTransformer (system "vit") or of DeiT's models ("deit"; its `pretrained_img_size`
/// is the size of the positional embedding). The checkpoint tells whether a DeiT is a distilled one.
std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors);

}  // namespace weft::vit
