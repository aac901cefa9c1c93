// Vision-RWKV (VRWKV): Duan et al., "Vision-RWKV: Efficient and Scalable Visual Perception with RWKV-Like
// Architectures", ICLR 2025, arXiv:2403.02308. A plain backbone like ViT, with bidirectional WKV attention (linear in
// the number of tokens) and Q-shift in place of softmax attention.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "models/architecture.h"
#include "ops/bi_wkv/bi_wkv.h"
#include "ops/interpolate/interpolate.h"

namespace weft::vision_rwkv {

/// How decay, bonus and mixes start: the official `init_mode`.
enum class InitMode { kFancy, kLocal, kGlobal };
/// kLinear: `head.fc` of mmcls (LinearClsHead). kPlain: `head` of the InternImage-style code. kTanhMlp: its
/// Linear–Tanh–Linear head, `head.0` and `head.2`, which that code uses for depth > 12.
enum class Head { kNone, kLinear, kPlain, kTanhMlp };

constexpr std::array<std::pair<InitMode, std::string_view>, 3> enum_names(InitMode) {
  return {{{InitMode::kFancy, "fancy"}, {InitMode::kLocal, "local"}, {InitMode::kGlobal, "global"}}};
}
constexpr std::array<std::pair<Head, std::string_view>, 4> enum_names(Head) {
  return {{{Head::kNone, "none"}, {Head::kLinear, "linear"}, {Head::kPlain, "plain"}, {Head::kTanhMlp, "tanh_mlp"}}};
}

/// Options under their official names; the defaults are those of the official backbone.
struct Config {
  static constexpr std::string_view kFamily = "vision_rwkv";
  static constexpr std::string_view kBlocks = "backbone.layers.";

  std::array<int, 2> img_size = {224, 224};  // height, width; sizes the positional embedding
  int patch_size = 16;
  int in_channels = 3;
  int embed_dims = 256;
  int depth = 12;
  int hidden_rate = 4;          // channel-mix width over embed_dims
  double channel_gamma = 0.25;  // share of the channels that each Q-shift direction takes
  int shift_pixel = 1;          // distance of the Q-shift; 0: no shift and no token mixing
  InitMode init_mode = InitMode::kFancy;
  bool post_norm = false;             // x + ln(f(x)) instead of x + f(ln(x))
  bool key_norm = false;              // LayerNorm on the WKV output and on the channel mix's hidden layer
  std::optional<double> init_values;  // layer scale (gamma1, gamma2) and its initial value; none without
  bool final_norm = true;
  InterpolateMode interpolate_mode = InterpolateMode::kBicubic;  // of the positional embedding
  std::vector<int> out_indices = {-1};  // layers whose maps the backbone gives; negative ones count from the end
  double drop_path_rate = 0;            // of the last block, rising linearly from 0; training only
  Head head = Head::kLinear;
  int num_classes = 1000;
  int hidden_dims = 3072;  // of Head::kTanhMlp
  /// Which Bi-WKV: the paper's formula, or that of the kernel which trained the released weights.
  Wkv wkv = Wkv::kPaper;

  static constexpr std::tuple kFields{
      Field{"img_size", &Config::img_size},
      Field{"patch_size", &Config::patch_size},
      Field{"in_channels", &Config::in_channels},
      Field{"embed_dims", &Config::embed_dims},
      Field{"depth", &Config::depth},
      Field{"hidden_rate", &Config::hidden_rate},
      Field{"channel_gamma", &Config::channel_gamma},
      Field{"shift_pixel", &Config::shift_pixel},
      Field{"init_mode", &Config::init_mode},
      Field{"post_norm", &Config::post_norm},
      Field{"key_norm", &Config::key_norm},
      Field{"init_values", &Config::init_values},
      Field{"final_norm", &Config::final_norm},
      Field{"interpolate_mode", &Config::interpolate_mode},
      Field{"out_indices", &Config::out_indices},
      Field{"drop_path_rate", &Config::drop_path_rate},
      Field{"head", &Config::head},
      Field{"num_classes", &Config::num_classes},
      Field{"hidden_dims", &Config::hidden_dims},
      Field{"wkv", &Config::wkv},
  };
  bool operator==(const Config&) const = default;
};

/// Throws ConfigError that names every value out of range.
void validate(const Config& config);

/// out_indices with negative ones counted from the end, ascending and once each, as the official loop emits them.
std::vector<int> resolve_out_indices(const Config& config);

/// Patches per column and row of a picture, the last ones padded.
struct Grid {
  int height = 0;
  int width = 0;
  std::int64_t tokens() const { return std::int64_t{height} * width; }
};
Grid grid_of(int height, int width, int patch_size);

/// Builds backbone and head; `image` is [B,in_channels,H,W].
ModelValues build(Graph& graph, Value image, const Config& config, std::span<const int> layers);

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides);
/// From the official `model` dictionary: mmcls's {type: ImageClassifier, backbone, head} for system "vrwkv", the flat
/// arguments of VRWKV_Classification for "vrwkv-internimage".
std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors);

}  // namespace weft::vision_rwkv
