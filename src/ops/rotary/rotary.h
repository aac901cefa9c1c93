// Rotary positions (Su et al. 2021, arXiv:2104.09864, eq. 34): neighbouring channels of a head are the coordinates of a
// point in the plane, which is turned by an angle proportional to the token's position. What RetNet and RMT call
// theta_shift.
//
//   x      [B,T,C]
//   angle  [D]       a constant, in radians a token; D even, a divisor of C: the channels of a head
//   y      [B,T,C]   with i = 2·j the first of two channels of a head, token t
//                      y[i]     = x[i]   · cos(t·angle[i])   − x[i+1] · sin(t·angle[i])
//                      y[i + 1] = x[i+1] · cos(t·angle[i+1]) + x[i]   · sin(t·angle[i+1])
//
// A turn where both angles are the same, as they are in checkpoints. Sines and cosines are of t·angle in double
// precision, however large t is. Counts no multiply-accumulates, as elementwise operators.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct Rotary {
  static constexpr std::string_view kName = "rotary";
  static constexpr std::tuple kFields{};
  bool operator==(const Rotary&) const = default;
};

std::vector<TensorType> infer(const Rotary& attributes, std::span<const TensorType> in);
void reference(const Rotary& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Rotary& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Rotary& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit.
Value rotary(Value x, Value angle);

}  // namespace weft
