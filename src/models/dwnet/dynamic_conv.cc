#include "models/dwnet/dynamic_conv.h"

#include "core/format.h"
#include "ops/ops.h"

namespace weft::dwnet {

Value pointwise(Value x, const Scope& s, std::int64_t channels, bool bias) {
  return conv2d(x, s, {.channels = channels, .kernel_size = 1, .bias = bias});
}

DynamicConv dynamic_conv(Value x, const Scope& s, int kernel_size, std::int64_t reduction) {
  const auto guard = s.enter();
  const std::int64_t batch = x.shape()[0];
  const std::int64_t places = x.shape()[1] * x.shape()[2];
  const std::int64_t channels = x.shape()[3];
  require<ShapeError>(reduction >= 1 && reduction <= channels, "dwnet", "{} channels can not be reduced {}-fold",
                      channels, reduction);
  const Value pooled = mean(reshape(x, {batch, places, channels}), 1);
  const Value hidden = relu(batch_norm(pointwise(pooled, s["conv1"], channels / reduction, false), s["bn"]));
  const Value rows = pointwise(hidden, s["conv2"], channels * kernel_size * kernel_size, true);
  const Value kernels = reshape(rows, {batch, channels, kernel_size, kernel_size});
  const Value bias = s.param("bias", {channels}, init::constant(0));
  return {depthwise_conv(x, kernels, bias, {.padding = kernel_size / 2}), kernels};
}

DynamicConv inhomogeneous_conv(Value x, const Scope& s, int kernel_size, std::int64_t group_channels) {
  const auto guard = s.enter();
  const std::int64_t channels = x.shape()[3];
  require<ShapeError>(channels >= kReduction && group_channels >= 1 && channels % group_channels == 0, "dwnet",
                      "{} channels do not make groups of {}", channels, group_channels);
  const Scope reduction = s["conv1"];
  const Value hidden = relu(batch_norm(pointwise(x, reduction[0], channels / kReduction, true), reduction[1]));
  const std::int64_t taps = std::int64_t{kernel_size} * kernel_size;
  const Value kernels = pointwise(hidden, s["conv2"][0], channels / group_channels * taps, true);
  return {involution(x, kernels, {.kernel_size = kernel_size}), kernels};
}

}  // namespace weft::dwnet
