// The connections of a whole network at a picture: `weft connect`.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "connect/measure.h"
#include "cpu/plan.h"
#include "torch/engine.h"

namespace weft {

struct ConnectOptions {
  MeasureOptions measure = {};
  /// Only what stands at this place of the model or below it ("backbone.layers.3"); empty: everything.
  std::string place = {};
};

/// Measures each part of the graph that mixes positions, in order, and hands it to `each`, which may keep it or let it
/// go: at any time there is one layer's matrices. `graph` is for one picture of batch 1, and is given further outputs.
/// `other` is the picture that tells whether weights are dynamic; both f32, of the input's shape. Throws as Plan does.
void for_each_connection(Graph& graph, const Weights& weights, const Tensor& input, const Tensor& other,
                         const ConnectOptions& options, const Workers& workers,
                         const std::function<void(const Connection&)>& each);

/// The input that weights are compared at: noise of mean 0 and deviation 1, always the same.
Tensor noise_like(const Tensor& input);

/// The effective receptive field (Luo et al. 2016, arXiv:1701.04128) of the graph's output number `output`, a map
/// [1,C,H,W], at its position (y, x): the length of the derivative of all channels there by each pixel of the input
/// [1,Cin,H',W'], f32 [H',W']. The mean of squares over draws of random signs for the channels stands for the sum over
/// all channels, which is right in the mean.
Tensor receptive_field(TorchEngine& engine, const Graph& graph, const Weights& weights, const Tensor& input, int output,
                       std::int64_t y, std::int64_t x);

}  // namespace weft
