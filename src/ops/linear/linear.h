// The affine map of the last axis: y = x·Wᵀ + b.
//
//   x       [...,K]
//   weight  [N,K]     a constant, as in PyTorch's nn.Linear
//   bias    [N]       a constant; optional
//   y       [...,N]
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct Linear {
  static constexpr std::string_view kName = "linear";
  static constexpr std::tuple kFields{};
  bool operator==(const Linear&) const = default;
};

std::vector<TensorType> infer(const Linear& attributes, std::span<const TensorType> in);
void reference(const Linear& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Linear& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Linear& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit.
Value linear(Value x, Value weight, std::optional<Value> bias = std::nullopt);
/// With the parameters "weight" and, if wanted, "bias" declared in `scope`, the weight as `weight_init` and the bias as
/// `bias_init` says.
Value linear(Value x, const Scope& scope, std::int64_t out_features, Initializer weight_init,
             std::optional<Initializer> bias_init = std::nullopt);

}  // namespace weft
