// Layer normalisation over the last axis (Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 4):
//
//   y = (x − mean) / √(variance + eps) · gamma + beta      mean and (biased) variance over C
//
//   x      [...,C]
//   gamma  [C]
//   beta   [C]
//   y      [...,C]
//
// The variance is that of the differences to the mean (two passes), never E[x²] − E[x]². Counts no
// multiply-accumulates, as elementwise operators.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct LayerNorm {
  float eps = 1e-5F;

  static constexpr std::string_view kName = "layer_norm";
  static constexpr std::tuple kFields{Field{"eps", &LayerNorm::eps}};
  bool operator==(const LayerNorm&) const = default;
};

std::vector<TensorType> infer(const LayerNorm& attributes, std::span<const TensorType> in);
void reference(const LayerNorm& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const LayerNorm& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const LayerNorm& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit, ConfigError when eps is negative or not finite.
Value layer_norm(Value x, Value gamma, Value beta, float eps = 1e-5F);
/// With the parameters "weight" (ones) and "bias" (zeros) declared in `scope`.
Value layer_norm(Value x, const Scope& scope, float eps = 1e-5F);

}  // namespace weft
