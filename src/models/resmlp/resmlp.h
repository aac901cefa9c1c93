// ResMLP: Touvron et al., "ResMLP: Feedforward networks for image classification with data-efficient training", TPAMI
// 2022, arXiv:2105.03404.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "models/architecture.h"
#include "models/parts.h"

namespace weft::resmlp {

/// Options under the official names; the defaults are the official ones.
struct Config {
  static constexpr std::string_view kFamily = "resmlp";
  static constexpr std::string_view kBlocks = "blocks.";

  std::array<int, 2> img_size = {224, 224};  // height, width, multiples of patch_size: of all pictures
  int patch_size = 16;
  int in_chans = 3;
  int num_classes = 1000;  // 0: no head
  int embed_dim = 768;
  int depth = 12;
  double init_scale = 1e-4;  // initial value of the layer scale

  static constexpr std::tuple kFields{
      Field{"img_size", &Config::img_size},     Field{"patch_size", &Config::patch_size},
      Field{"in_chans", &Config::in_chans},     Field{"num_classes", &Config::num_classes},
      Field{"embed_dim", &Config::embed_dim},   Field{"depth", &Config::depth},
      Field{"init_scale", &Config::init_scale},
  };
  bool operator==(const Config&) const = default;

  /// Rows and columns of the grid of patches.
  TokenGrid grid() const { return {img_size[0] / patch_size, img_size[1] / patch_size}; }
};

/// Throws ConfigError that names every value out of range.
void validate(const Config& config);

/// Builds backbone and head; `image` is [B,in_chans,H,W]. The weights of the token mixing fix the number of tokens:
/// throws ShapeError for other pictures than those of img_size. The final affine map is applied to the last map;
/// `pooled` is its mean.
ModelValues build(Graph& graph, Value image, const Config& config, std::span<const int> layers);

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides);
/// From the arguments of the official resmlp_models (system "resmlp").
std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors);

}  // namespace weft::resmlp
