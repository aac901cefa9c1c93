// The dynamic depth-wise convolutions of DWNet, section 3 of arXiv:2106.04263, under the official code's names.
#pragma once

#include <cstdint>

#include "graph/graph.h"

namespace weft::dwnet {

/// A convolution and the kernels that it was computed with.
struct DynamicConv {
  Value y;  // [B,H,W,C]
  Value kernels;
};

/// Of channels, where kernels are computed.
constexpr std::int64_t kReduction = 4;

/// One kernel for each channel of each picture, [B,C,k,k], from the mean of its places: "conv1", "bn", ReLU, "conv2";
/// and "bias". x [B,H,W,C]
DynamicConv dynamic_conv(Value x, const Scope& s, int kernel_size, std::int64_t reduction = kReduction);

/// One kernel for each group of `group_channels` channels of each place, [B,H,W,G·k·k], from that place: "conv1.0",
/// "conv1.1" (a norm), ReLU, "conv2.0". x [B,H,W,C]
DynamicConv inhomogeneous_conv(Value x, const Scope& s, int kernel_size, std::int64_t group_channels);

/// A 1 × 1 convolution.
Value pointwise(Value x, const Scope& s, std::int64_t channels, bool bias);

}  // namespace weft::dwnet
