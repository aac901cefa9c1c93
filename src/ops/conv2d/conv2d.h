// The two-dimensional convolution (cross-correlation, as everywhere in deep learning) of grids with channels last.
//
//   x       [B,H,W,Cin]
//   weight  [Cout,Cin,kh,kw]   as in PyTorch's nn.Conv2d; a constant on the CPU engine
//   bias    [Cout]             the same; optional
//   y       [B,H',W',Cout]     H' = (H + 2·padding − kh) / stride + 1, rounded down; W' likewise
//
//   y[b,h,w,o] = bias[o] + Σ_{c,i,j} x[b, h·stride + i − padding, w·stride + j − padding, c] · weight[o,c,i,j]
//
// with zeros outside of x. Multiply-accumulates count these. A 1 × 1 convolution is a linear map, and is one by the
// builder with a scope.
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

struct Conv2d {
  int stride = 1;
  int padding = 0;  // on each side

  static constexpr std::string_view kName = "conv2d";
  static constexpr std::tuple kFields{Field{"stride", &Conv2d::stride}, Field{"padding", &Conv2d::padding}};
  bool operator==(const Conv2d&) const = default;
};

std::vector<TensorType> infer(const Conv2d& attributes, std::span<const TensorType> in);
void reference(const Conv2d& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Conv2d& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Conv2d& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit, ConfigError for attributes out of range.
Value conv2d(Value x, Value weight, std::optional<Value> bias, const Conv2d& attributes);

/// What a layer with parameters of its own is told.
struct Conv2dLayer {
  std::int64_t channels = 0;  // of the result
  int kernel_size = 3;
  int stride = 1;
  int padding = 0;
  bool bias = true;
};

/// With the parameters "weight" and, if wanted, "bias" declared in `scope`, initialised as PyTorch's Conv2d.
Value conv2d(Value x, const Scope& scope, const Conv2dLayer& layer);

}  // namespace weft
