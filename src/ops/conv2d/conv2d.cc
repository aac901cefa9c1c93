#include "ops/conv2d/conv2d.h"

#include "core/format.h"
#include "ops/layout/layout.h"
#include "ops/linear/linear.h"

namespace weft {

std::vector<TensorType> infer(const Conv2d& attributes, std::span<const TensorType> in) {
  const auto& [stride, padding] = attributes;
  require<ConfigError>(stride >= 1 && padding >= 0, "conv2d",
                       "stride must be at least 1 and padding at least 0, got {} and {}", stride, padding);
  require<ShapeError>(in.size() == 2 || in.size() == 3, "conv2d", "takes x, weight and an optional bias, got {} inputs",
                      in.size());
  const Shape& x = in[0].shape;
  const Shape& weight = in[1].shape;
  require<ShapeError>(x.rank() == 4 && x[3] >= 1, "conv2d", "x must be [B,H,W,Cin], Cin ≥ 1, got {}", x);
  require<ShapeError>(weight.rank() == 4 && weight[1] == x[3] && weight.elements() > 0, "conv2d",
                      "weight must be [Cout,Cin,kh,kw]=[Cout,{},kh,kw] with elements, got {}", x[3], weight);
  require<ShapeError>(in.size() == 2 || in[2].shape == Shape{weight[0]}, "conv2d", "bias must be [Cout]=[{}], got {}",
                      weight[0], in.back().shape);
  const auto extent = [&](int axis) {
    const std::int64_t padded = x[axis] + 2 * std::int64_t{attributes.padding};
    require<ShapeError>(padded >= weight[axis + 1], "conv2d",
                        "x {} with a padding of {} is smaller than the kernel {} x {}", x, attributes.padding,
                        weight[2], weight[3]);
    return (padded - weight[axis + 1]) / attributes.stride + 1;
  };
  const std::int64_t height = extent(1);
  return {{in[0].dtype, {x[0], height, extent(2), weight[0]}}};
}

std::int64_t macs(const Conv2d& attributes, std::span<const TensorType> in) {
  const Shape y = infer(attributes, in)[0].shape;
  return count_product({y[0], y[1], y[2], in[1].shape.elements()});
}

void reference(const Conv2d& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const Shape& from = in[0].shape();
  const Shape& weight = in[1].shape();
  const Shape& to = out[0].shape();
  const auto x = in[0].data<double>();
  const auto w = in[1].data<double>();
  const auto y = out[0].mutable_data<double>();
  for (std::int64_t flat = 0; flat < to.elements(); ++flat) {
    const std::int64_t o = flat % to[3];
    const std::int64_t left = flat / to[3] % to[2] * attributes.stride - attributes.padding;
    const std::int64_t top = flat / to[3] / to[2] % to[1] * attributes.stride - attributes.padding;
    const std::int64_t b = flat / to[3] / to[2] / to[1];
    double sum = in.size() == 3 ? in[2].data<double>()[static_cast<std::size_t>(o)] : 0;
    for (std::int64_t c = 0; c < from[3]; ++c) {
      for (std::int64_t i = 0; i < weight[2]; ++i) {
        for (std::int64_t j = 0; j < weight[3]; ++j) {
          if (top + i < 0 || top + i >= from[1] || left + j < 0 || left + j >= from[2]) continue;
          const std::int64_t pixel = ((b * from[1] + top + i) * from[2] + left + j) * from[3] + c;
          const std::int64_t tap = ((o * weight[1] + c) * weight[2] + i) * weight[3] + j;
          sum += x[static_cast<std::size_t>(pixel)] * w[static_cast<std::size_t>(tap)];
        }
      }
    }
    y[static_cast<std::size_t>(flat)] = sum;
  }
}

Value conv2d(Value x, Value weight, std::optional<Value> bias, const Conv2d& attributes) {
  return bias ? x.graph().add_one(attributes, {x, weight, *bias}) : x.graph().add_one(attributes, {x, weight});
}

Value conv2d(Value x, const Scope& scope, const Conv2dLayer& layer) {
  const std::int64_t from = x.shape()[-1];
  const int k = layer.kernel_size;
  const Initializer uniform = init::uniform_fan_in(from * k * k);
  const Value weight = scope.param("weight", {layer.channels, from, k, k}, uniform);
  const auto bias = layer.bias ? std::optional(scope.param("bias", {layer.channels}, uniform)) : std::nullopt;
  if (k == 1 && layer.stride == 1 && layer.padding == 0)
    return linear(x, reshape(weight, {layer.channels, from}), bias);
  return conv2d(x, weight, bias, {.stride = layer.stride, .padding = layer.padding});
}

}  // namespace weft
