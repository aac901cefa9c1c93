#include "ops/depthwise_conv/depthwise_conv.h"

#include "core/format.h"

namespace weft {

// With one channel and one picture both kinds are the same.
bool is_dynamic(const Shape& x, const Shape& weight) { return weight[0] == x[0] && weight[1] == x[3]; }

std::vector<TensorType> infer(const DepthwiseConv& attributes, std::span<const TensorType> in) {
  const int padding = attributes.padding;
  require<ConfigError>(padding >= 0, "depthwise_conv", "padding must be at least 0, got {}", padding);
  require<ShapeError>(in.size() == 2 || in.size() == 3, "depthwise_conv",
                      "takes x, weight and an optional bias, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  const Shape& weight = in[1].shape;
  require<ShapeError>(x.rank() == 4, "depthwise_conv", "x must be [B,H,W,C], got {}", x);
  const bool is_kernels = weight.rank() == 4 && weight[2] >= 1 && weight[3] >= 1;
  require<ShapeError>(is_kernels && (is_dynamic(x, weight) || (weight[0] == x[3] && weight[1] == 1)), "depthwise_conv",
                      "weight must be [C,1,kh,kw]=[{},1,kh,kw] or [B,C,kh,kw]=[{},{},kh,kw], kh and kw ≥ 1, got {}",
                      x[3], x[0], x[3], weight);
  require<ShapeError>(in.size() == 2 || in[2].shape == Shape{x[3]}, "depthwise_conv", "bias must be [C]=[{}], got {}",
                      x[3], in.back().shape);
  const auto extent = [&](int axis) {
    const std::int64_t padded = x[axis] + 2 * std::int64_t{padding};
    require<ShapeError>(padded >= weight[axis + 1], "depthwise_conv",
                        "x {} with a padding of {} is smaller than the kernel {} x {}", x, padding, weight[2],
                        weight[3]);
    return padded - weight[axis + 1] + 1;
  };
  const std::int64_t height = extent(1);
  return {{in[0].dtype, {x[0], height, extent(2), x[3]}}};
}

std::int64_t macs(const DepthwiseConv& attributes, std::span<const TensorType> in) {
  return count_product({infer(attributes, in)[0].shape.elements(), in[1].shape[2], in[1].shape[3]});
}

void reference(const DepthwiseConv& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const Shape& from = in[0].shape();
  const Shape& weight = in[1].shape();
  const Shape& to = out[0].shape();
  const auto x = in[0].data<double>();
  const auto w = in[1].data<double>();
  const auto y = out[0].mutable_data<double>();
  const bool dynamic = is_dynamic(from, weight);
  for (std::int64_t flat = 0; flat < to.elements(); ++flat) {
    const std::int64_t c = flat % to[3];
    const std::int64_t left = flat / to[3] % to[2] - attributes.padding;
    const std::int64_t top = flat / to[3] / to[2] % to[1] - attributes.padding;
    const std::int64_t b = flat / to[3] / to[2] / to[1];
    double sum = in.size() == 3 ? in[2].data<double>()[static_cast<std::size_t>(c)] : 0;
    for (std::int64_t i = 0; i < weight[2]; ++i) {
      for (std::int64_t j = 0; j < weight[3]; ++j) {
        if (top + i < 0 || top + i >= from[1] || left + j < 0 || left + j >= from[2]) continue;
        const std::int64_t pixel = ((b * from[1] + top + i) * from[2] + left + j) * from[3] + c;
        const std::int64_t tap = (((dynamic ? b * from[3] : 0) + c) * weight[2] + i) * weight[3] + j;
        sum += x[static_cast<std::size_t>(pixel)] * w[static_cast<std::size_t>(tap)];
      }
    }
    y[static_cast<std::size_t>(flat)] = sum;
  }
}

Value depthwise_conv(Value x, Value weight, std::optional<Value> bias, const DepthwiseConv& attributes) {
  return bias ? x.graph().add_one(attributes, {x, weight, *bias}) : x.graph().add_one(attributes, {x, weight});
}

Value depthwise_conv(Value x, const Scope& scope, int kernel_size, bool bias) {
  const std::int64_t channels = x.shape()[-1];
  const Initializer uniform = init::uniform_fan_in(std::int64_t{kernel_size} * kernel_size);
  const Value weight = scope.param("weight", {channels, 1, kernel_size, kernel_size}, uniform);
  const auto shift = bias ? std::optional(scope.param("bias", {channels}, uniform)) : std::nullopt;
  return depthwise_conv(x, weight, shift, {.padding = kernel_size / 2});
}

}  // namespace weft
