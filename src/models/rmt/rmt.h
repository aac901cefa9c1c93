// RMT: Fan et al., "RMT: Retentive Networks Meet Vision Transformers", CVPR 2024, arXiv:2309.11523.
#pragma once

#include <optional>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "models/architecture.h"
#include "models/parts.h"

namespace weft::rmt {

/// Options under the official names, lists having one entry for each stage; the defaults are the official ones.
struct Config {
  static constexpr std::string_view kFamily = "rmt";
  static constexpr std::string_view kBlocks = "layers.";

  int in_chans = 3;
  int num_classes = 1000;  // 0: no head
  std::vector<int> embed_dims = {96, 192, 384, 768};
  std::vector<int> depths = {2, 2, 6, 2};
  std::vector<int> num_heads = {3, 6, 12, 24};  // divisors of embed_dims, heads of an even number of channels
  /// Head h of H keeps 1 − 2^(−init_value − heads_range·h/H) of what is one token away. In checkpoints as a buffer.
  std::vector<double> init_values = {1, 1, 1, 1};
  std::vector<double> heads_ranges = {3, 3, 3, 3};
  std::vector<double> mlp_ratios = {3, 3, 3, 3};
  double drop_path_rate = 0.1;  // of the last block, rising linearly from 0; training only
  /// Whether attention is decomposed: along the width, then along the height.
  std::vector<bool> chunkwise_recurrents = {true, true, false, false};
  int projection = 1024;  // channels that the head reads
  std::vector<bool> layerscales = {false, false, false, false};
  double layer_init_values = 1e-6;  // initial value of the layer scale

  static constexpr std::tuple kFields{
      Field{"in_chans", &Config::in_chans},
      Field{"num_classes", &Config::num_classes},
      Field{"embed_dims", &Config::embed_dims},
      Field{"depths", &Config::depths},
      Field{"num_heads", &Config::num_heads},
      Field{"init_values", &Config::init_values},
      Field{"heads_ranges", &Config::heads_ranges},
      Field{"mlp_ratios", &Config::mlp_ratios},
      Field{"drop_path_rate", &Config::drop_path_rate},
      Field{"chunkwise_recurrents", &Config::chunkwise_recurrents},
      Field{"projection", &Config::projection},
      Field{"layerscales", &Config::layerscales},
      Field{"layer_init_values", &Config::layer_init_values},
  };
  bool operator==(const Config&) const = default;

  /// Width of the hidden layer in a stage's feed-forward networks.
  int hidden(std::size_t stage) const;
};

/// Throws ConfigError that names every value out of range.
void validate(const Config& config);

/// Manhattan self-attention (MaSA, eq. 4 to 9 of the paper) on one grid. What depends on the weights alone is computed
/// once for all blocks of a stage.
class Masa {
 public:
  struct Options {
    int heads = 1;
    TokenGrid grid;
    bool decomposed = false;
    double init_value = 2;
    double heads_range = 4;
  };
  /// For tokens of `channels` channels; the buffers "angle" [D] and "decay" [heads] are declared in `relpos`.
  Masa(const Scope& relpos, std::int64_t channels, const Options& options);

  /// Projections, attention, local enhancement and the output projection, their parameters declared in `s`. x [B,T,C]
  Value operator()(const Scope& s, Value x) const;

  /// Within what attention takes place, one after the other: the whole grid; decomposed a row, and then a column.
  std::vector<TokenGrid> windows() const;
  /// What is added to the scores of each of them, by distance, [heads,(2·h − 1)·(2·w − 1)] as window_attention has it.
  const std::vector<Value>& biases() const { return biases_; }

 private:
  Value attend(Value q, Value k, Value v) const;

  Options options_;
  Value angle_;
  std::vector<Value> biases_;
};

/// Builds backbone and head; `image` is [B,in_chans,H,W] of any size. Layers are the stages: their maps are what the
/// last block of each gives, before the downsampling. `pooled` is what the head reads, [B,projection].
ModelValues build(Graph& graph, Value image, const Config& config, std::span<const int> layers);

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides);
/// From the arguments of the official VisRetNet (system "rmt").
std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors);

}  // namespace weft::rmt
