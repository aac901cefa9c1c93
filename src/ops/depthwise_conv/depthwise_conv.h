// The depth-wise convolution: each channel of a grid is convolved with a kernel of its own, the same for all pictures
// or one for each (the homogeneous dynamic depth-wise convolution of Han et al., "On the Connection between Local
// Attention and Dynamic Depth-wise Convolution", ICLR 2022, arXiv:2106.04263, whose kernels are computed from the
// picture).
//
//   x       [B,H,W,C]
//   weight  [C,1,kh,kw]   as in PyTorch's nn.Conv2d with C groups: one kernel a channel
//           [B,C,kh,kw]   or one a picture and channel
//   bias    [C]           optional
//   y       [B,H',W',C]   H' = H + 2·padding − kh + 1; W' likewise
//
//   y[b,h,w,c] = bias[c] + Σ_{i,j} x[b, h + i − padding, w + j − padding, c] · weight[(b),c,i,j]
//
// with zeros outside of x. Multiply-accumulates count these.
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

struct DepthwiseConv {
  int padding = 0;  // on each side

  static constexpr std::string_view kName = "depthwise_conv";
  static constexpr std::tuple kFields{Field{"padding", &DepthwiseConv::padding}};
  bool operator==(const DepthwiseConv&) const = default;
};

std::vector<TensorType> infer(const DepthwiseConv& attributes, std::span<const TensorType> in);
void reference(const DepthwiseConv& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const DepthwiseConv& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const DepthwiseConv& attributes, const KernelRequest& request);

/// Whether these kernels are one for each picture of x [B,H,W,C].
bool is_dynamic(const Shape& x, const Shape& weight);

/// Throws ShapeError when the extents do not fit, ConfigError for a negative padding.
Value depthwise_conv(Value x, Value weight, std::optional<Value> bias, const DepthwiseConv& attributes);
/// With the parameters "weight" [C,1,k,k] and, if wanted, "bias" declared in `scope`, initialised as PyTorch's Conv2d,
/// and a padding that keeps the grid where kernel_size is odd.
Value depthwise_conv(Value x, const Scope& scope, int kernel_size, bool bias = true);

}  // namespace weft
