// How a configuration treats each step and each parameter.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/random.h"
#include "models/architecture.h"
#include "torch/trainer.h"
#include "train/config.h"

namespace weft {

/// The learning rate of step `step` of `steps`: linear from lr/warmup to lr over the first `warmup` steps, then half a
/// cosine that would reach min_lr one step behind the last (Loshchilov, Hutter 2017, arXiv:1608.03983, without
/// restarts).
double learning_rate(const TrainConfig& config, std::int64_t step, std::int64_t warmup, std::int64_t steps);

/// The graph to train an architecture on images [B,C,H,W] or tokens [B,T] of a shape; of one that reads text each entry
/// is a text of its own. Throws UnsupportedError for a bare backbone.
std::unique_ptr<Graph> training_graph(const Architecture& architecture, const Shape& input, bool training = true);

/// 0 for what lies before the blocks (embedding, positions, tokens), 1 + i for block i, 1 + depth for what follows
/// (final norm, head): of each parameter of the graph, in its order.
std::vector<int> layers_of_parameters(const Graph& graph, const Architecture& architecture);

/// What config says of each parameter of the graph, in its order. Weight decay is for weights that multiply (of linear
/// layers and of the patch embedding); norms, biases, mixes, decays, layer scales, tokens and positions are without.
/// With layer_decay d, layer l of L + 1 learns at d^(L + 1 − l) of the rate (Clark et al. 2020, arXiv:2003.10555).
std::vector<TrainedParameter> plan_parameters(const Graph& graph, const Architecture& architecture,
                                              const TrainConfig& config);

/// Fills the inputs of a training graph that drop branches, each element for one sample: 0 with the block's probability
/// p, else 1/(1 − p). Picture `first` + b of the epoch draws the same whatever batch it is in.
std::vector<Tensor> draw_branches(const Graph& graph, double drop_path, std::uint64_t seed, std::int64_t epoch,
                                  std::int64_t first);

}  // namespace weft
