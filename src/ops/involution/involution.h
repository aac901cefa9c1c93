// The inhomogeneous dynamic depth-wise convolution (Han et al., "On the Connection between Local Attention and Dynamic
// Depth-wise Convolution", ICLR 2022, arXiv:2106.04263), also called involution (Li et al., CVPR 2021,
// arXiv:2103.06255): each place has kernels of its own, one for each group of neighbouring channels.
//
//   x       [B,H,W,C]
//   weight  [B,H,W,G·k·k]   G groups of C/G channels; entry (g·k + i)·k + j
//   y       [B,H,W,C]
//
//   y[b,h,w,c] = Σ_{i,j} x[b, h + i − p, w + j − p, c] · weight[b, h, w, (g·k + i)·k + j]   g = ⌊c·G/C⌋, p = ⌊k/2⌋
//
// with zeros outside of x, and k odd. Multiply-accumulates count these.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct Involution {
  int kernel_size = 7;

  static constexpr std::string_view kName = "involution";
  static constexpr std::tuple kFields{Field{"kernel_size", &Involution::kernel_size}};
  bool operator==(const Involution&) const = default;

  std::int64_t taps() const { return std::int64_t{kernel_size} * kernel_size; }
};

std::vector<TensorType> infer(const Involution& attributes, std::span<const TensorType> in);
void reference(const Involution& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Involution& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Involution& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit, ConfigError for a kernel_size that is not odd.
Value involution(Value x, Value weight, const Involution& attributes);

}  // namespace weft
