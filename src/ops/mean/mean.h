// The mean over one axis, which disappears: x [B,T,C] → y [B,C] for axis 1 (global average pooling over the tokens).
//
// Sums in f32 are taken in blocks and the blocks' sums in f64, so that the error does not grow with the length of the
// axis and the result does not depend on threads. Counts no multiply-accumulates.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct Mean {
  int axis = 1;  // from 0; a negative one counts from the end

  static constexpr std::string_view kName = "mean";
  static constexpr std::tuple kFields{Field{"axis", &Mean::axis}};
  bool operator==(const Mean&) const = default;
};

std::vector<TensorType> infer(const Mean& attributes, std::span<const TensorType> in);
void reference(const Mean& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Mean& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Mean& attributes, const KernelRequest& request);

/// Throws ShapeError when x has no such axis or the axis is empty.
Value mean(Value x, int axis = 1);

}  // namespace weft
