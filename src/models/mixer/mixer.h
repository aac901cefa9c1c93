// MLP-Mixer: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", NeurIPS 2021, arXiv:2105.01601.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "models/architecture.h"
#include "models/parts.h"

namespace weft::mixer {

/// Options under timm's names; the defaults are timm's.
struct Config {
  static constexpr std::string_view kFamily = "mixer";
  static constexpr std::string_view kBlocks = "blocks.";

  std::array<int, 2> img_size = {224, 224};  // height, width, multiples of patch_size: of all pictures
  int patch_size = 16;
  int in_chans = 3;
  int num_classes = 1000;  // 0: no head
  int embed_dim = 512;
  int depth = 8;
  /// Widths of the hidden layers of the token and of the channel MLP, both over embed_dim.
  std::array<double, 2> mlp_ratio = {0.5, 4};

  static constexpr std::tuple kFields{
      Field{"img_size", &Config::img_size},   Field{"patch_size", &Config::patch_size},
      Field{"in_chans", &Config::in_chans},   Field{"num_classes", &Config::num_classes},
      Field{"embed_dim", &Config::embed_dim}, Field{"num_blocks", &Config::depth},
      Field{"mlp_ratio", &Config::mlp_ratio},
  };
  bool operator==(const Config&) const = default;

  /// Rows and columns of the grid of patches.
  TokenGrid grid() const { return {img_size[0] / patch_size, img_size[1] / patch_size}; }
  /// Widths of the hidden layers of the two MLPs.
  int token_hidden() const { return hidden(mlp_ratio[0]); }
  int channel_hidden() const { return hidden(mlp_ratio[1]); }

 private:
  int hidden(double ratio) const;
};

/// Throws ConfigError that names every value out of range.
void validate(const Config& config);

/// Builds backbone and head; `image` is [B,in_chans,H,W]. The token MLP's weights fix the number of tokens: throws
/// ShapeError for other pictures than those of img_size. The final norm is applied to the last map; `pooled` is its
/// mean.
ModelValues build(Graph& graph, Value image, const Config& config, std::span<const int> layers);

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides);
/// From the arguments of timm's MlpMixer (system "mlp-mixer").
std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors);

}  // namespace weft::mixer
