// Swin Transformer: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021,
// arXiv:2103.14030; and its second version: Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR
// 2022, arXiv:2111.09883. As classification networks, and as the backbones of the authors' detection code.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "models/architecture.h"

namespace weft::swin {

/// Options under the official names; the defaults are the official ones.
struct Config {
  static constexpr std::string_view kFamily = "swin";
  static constexpr std::string_view kBlocks = "layers.";

  int version = 1;                        // 2: cosine attention, continuous position bias, norms behind the branches
  std::array<int, 2> img_size{224, 224};  // height, width; where stages become smaller than a window, and the size of
                                          // the absolute position embedding
  int patch_size = 4;
  int in_chans = 3;
  int num_classes = 1000;  // 0: no head
  int embed_dim = 96;      // of the first stage; doubles from stage to stage
  std::vector<int> depths{2, 2, 6, 2};
  std::vector<int> num_heads{3, 6, 12, 24};
  int window_size = 7;
  double mlp_ratio = 4;
  bool qkv_bias = true;
  bool ape = false;                          // an absolute position embedding
  bool patch_norm = true;                    // a norm behind the patch embedding
  std::vector<int> pretrained_window_sizes;  // version 2, one a stage: what offsets are measured by; 0 or none: window
  /// Of a detection backbone: the stages whose maps have a norm of their own. It has no head, its windows never become
  /// smaller, and it always shifts. Empty: a classification network.
  std::vector<int> out_indices;

  static constexpr std::tuple kFields{
      Field{"version", &Config::version},         Field{"img_size", &Config::img_size},
      Field{"patch_size", &Config::patch_size},   Field{"in_chans", &Config::in_chans},
      Field{"num_classes", &Config::num_classes}, Field{"embed_dim", &Config::embed_dim},
      Field{"depths", &Config::depths},           Field{"num_heads", &Config::num_heads},
      Field{"window_size", &Config::window_size}, Field{"mlp_ratio", &Config::mlp_ratio},
      Field{"qkv_bias", &Config::qkv_bias},       Field{"ape", &Config::ape},
      Field{"patch_norm", &Config::patch_norm},   Field{"pretrained_window_sizes", &Config::pretrained_window_sizes},
      Field{"out_indices", &Config::out_indices},
  };
  bool operator==(const Config&) const = default;

  int stages() const { return static_cast<int>(depths.size()); }
  int channels(int stage) const { return embed_dim << stage; }
  bool is_detection() const { return !out_indices.empty(); }
  bool has_norm(int stage) const { return std::ranges::find(out_indices, stage) != out_indices.end(); }
  /// Side of the windows of a stage, which the official classification code fits to pictures of img_size.
  int window(int stage) const;
  /// Width of the MLP's hidden layer.
  int hidden(int stage) const;
};

/// Throws ConfigError that names every value out of range.
void validate(const Config& config);

/// Builds backbone and head; `image` is [B,in_chans,H,W]. Grids that the windows do not divide are padded with zeros at
/// the bottom and the right, as the detection code does; at img_size a classification network is exactly the official
/// one. A layer is a stage: maps are those before it is merged, after the norm for the last one or where it has one.
ModelValues build(Graph& graph, Value image, const Config& config, std::span<const int> layers);

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides);
/// From the arguments of SwinTransformer (system "swin"), SwinTransformerV2 ("swinv2"), or SwinTransformer of the
/// detection code ("swin-det").
std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors);

}  // namespace weft::swin
