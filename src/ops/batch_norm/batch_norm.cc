#include "ops/batch_norm/batch_norm.h"

#include <array>
#include <cmath>

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const BatchNorm& attributes, std::span<const TensorType> in) {
  require<ConfigError>(attributes.eps >= 0 && std::isfinite(attributes.eps), "batch_norm",
                       "eps must be finite and at least 0, got {}", attributes.eps);
  require<ShapeError>(in.size() == 5, "batch_norm",
                      "takes x, weight, bias, running_mean and running_var, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  require<ShapeError>(x.rank() >= 1, "batch_norm", "x must be [...,C], got a scalar");
  constexpr std::array<std::string_view, 4> kNames = {"weight", "bias", "running_mean", "running_var"};
  for (std::size_t i = 1; i < in.size(); ++i) {
    require<ShapeError>(in[i].shape == Shape{x[-1]}, "batch_norm", "{} must be [C]=[{}], got {}", kNames[i - 1], x[-1],
                        in[i].shape);
  }
  return {in[0]};
}

std::int64_t macs(const BatchNorm&, std::span<const TensorType>) { return 0; }

void reference(const BatchNorm& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto y = out[0].mutable_data<double>();
  const auto channels = static_cast<std::size_t>(in[0].shape()[-1]);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto of_channel = [&](std::size_t input) { return in[input].data<double>()[i % channels]; };
    const double deviation = std::sqrt(of_channel(4) + static_cast<double>(attributes.eps));
    y[i] = (x[i] - of_channel(3)) / deviation * of_channel(1) + of_channel(2);
  }
}

Value batch_norm(Value x, Value weight, Value bias, Value running_mean, Value running_var, float eps) {
  return x.graph().add_one(BatchNorm{.eps = eps}, {x, weight, bias, running_mean, running_var});
}

Value batch_norm(Value x, const Scope& scope, float eps) {
  const Shape channels{x.shape()[-1]};
  const Value weight = scope.param("weight", channels, init::constant(1));
  const Value bias = scope.param("bias", channels, init::constant(0));
  const Value mean = scope.buffer("running_mean", channels, init::constant(0));
  return batch_norm(x, weight, bias, mean, scope.buffer("running_var", channels, init::constant(1)), eps);
}

}  // namespace weft
