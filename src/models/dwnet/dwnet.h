// DWNet: Han et al., "On the Connection between Local Attention and Dynamic Depth-wise Convolution", ICLR 2022,
// arXiv:2106.04263. Swin Transformer with depth-wise convolutions in the place of its attention: static ones, dynamic
// ones (kernels computed from the picture: D-DWNet) or inhomogeneous dynamic ones (from each place of it: I-D-DWNet).
// As classification networks, and as the backbones of the authors' detection code.
//
// The official code that was published last builds a static network where a dynamic one is asked for (an `else` belongs
// to the wrong `if` in DWBlock); the published weights, and this, are of the dynamic one.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "models/architecture.h"

namespace weft::dwnet {

/// Options under the official names; the defaults are the official ones.
struct Config {
  static constexpr std::string_view kFamily = "dwnet";
  static constexpr std::string_view kBlocks = "layers.";

  std::array<int, 2> img_size{224, 224};  // height, width, multiples of patch_size: size of the position embedding
  int patch_size = 4;
  int in_chans = 3;
  int num_classes = 1000;  // 0: no head
  int embed_dim = 96;      // of the first stage; doubles from stage to stage
  std::vector<int> depths{2, 2, 6, 2};
  int window_size = 7;  // side of the kernels, odd
  double mlp_ratio = 4;
  bool ape = false;               // an absolute position embedding
  bool patch_norm = true;         // a norm behind the patch embedding
  bool dynamic = false;           // kernels from the picture
  bool inhomogeneous = false;     // from each place of it; with `dynamic` only
  std::vector<int> inhomo_heads;  // of inhomogeneous kernels, one a stage: channels (!) that share a kernel
  /// Of a detection backbone: the stages whose maps have a norm of their own. It has no head, and its convolutions see
  /// maps padded to multiples of the window_size. Empty: a classification network.
  std::vector<int> out_indices;

  static constexpr std::tuple kFields{
      Field{"img_size", &Config::img_size},
      Field{"patch_size", &Config::patch_size},
      Field{"in_chans", &Config::in_chans},
      Field{"num_classes", &Config::num_classes},
      Field{"embed_dim", &Config::embed_dim},
      Field{"depths", &Config::depths},
      Field{"window_size", &Config::window_size},
      Field{"mlp_ratio", &Config::mlp_ratio},
      Field{"ape", &Config::ape},
      Field{"patch_norm", &Config::patch_norm},
      Field{"dynamic", &Config::dynamic},
      Field{"inhomogeneous", &Config::inhomogeneous},
      Field{"inhomo_heads", &Config::inhomo_heads},
      Field{"out_indices", &Config::out_indices},
  };
  bool operator==(const Config&) const = default;

  int stages() const { return static_cast<int>(depths.size()); }
  int channels(int stage) const { return embed_dim << stage; }
  bool is_detection() const { return !out_indices.empty(); }
  bool has_norm(int stage) const { return std::ranges::find(out_indices, stage) != out_indices.end(); }
  /// Width of the MLP's hidden layer.
  int hidden(int stage) const;
};

/// Throws ConfigError that names every value out of range.
void validate(const Config& config);

/// Builds backbone and head; `image` is [B,in_chans,H,W]. Any size will do: patches and odd grids are padded with zeros
/// at the bottom and the right, as the detection code does. A layer is a stage: maps are those before it is merged,
/// after the norm for the last one or where it has one.
ModelValues build(Graph& graph, Value image, const Config& config, std::span<const int> layers);

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides);
/// From the arguments of DWNet: systems "dwnet-dw", "dwnet-ddw" and "dwnet-iddw", and "-det" behind it for that of the
/// detection code.
std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors);

}  // namespace weft::dwnet
