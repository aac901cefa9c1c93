#include "ops/linear/linear.h"

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const Linear&, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 2 || in.size() == 3, "linear", "takes x, weight and an optional bias, got {} inputs",
                      in.size());
  const Shape& x = in[0].shape;
  const Shape& weight = in[1].shape;
  require<ShapeError>(weight.rank() == 2, "linear", "weight must be [N,K], got {}", weight);
  require<ShapeError>(x.rank() >= 1 && x[-1] == weight[1], "linear", "x must be [...,K]=[...,{}] for weight {}, got {}",
                      weight[1], weight, x);
  require<ShapeError>(in.size() == 2 || in[2].shape == Shape{weight[0]}, "linear", "bias must be [N]=[{}], got {}",
                      weight[0], in.back().shape);
  std::vector<std::int64_t> extents(x.extents().begin(), x.extents().end());
  extents.back() = weight[0];
  return {{in[0].dtype, Shape(std::move(extents))}};
}

std::int64_t macs(const Linear&, std::span<const TensorType> in) {
  return count_product({in[0].shape.elements(), in[1].shape[0]});
}

void reference(const Linear&, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto weight = in[1].data<double>();
  const auto y = out[0].mutable_data<double>();
  const auto n = static_cast<std::size_t>(in[1].shape()[0]);
  const auto k = static_cast<std::size_t>(in[1].shape()[1]);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t row = i / n;
    const std::size_t column = i % n;
    double sum = in.size() == 3 ? in[2].data<double>()[column] : 0;
    for (std::size_t j = 0; j < k; ++j) sum += x[row * k + j] * weight[column * k + j];
    y[i] = sum;
  }
}

Value linear(Value x, Value weight, std::optional<Value> bias) {
  return bias ? x.graph().add_one(Linear{}, {x, weight, *bias}) : x.graph().add_one(Linear{}, {x, weight});
}

Value linear(Value x, const Scope& scope, std::int64_t out_features, Initializer weight_init,
             std::optional<Initializer> bias_init) {
  const Value weight = scope.param("weight", {out_features, x.shape()[-1]}, std::move(weight_init));
  if (!bias_init) return linear(x, weight);
  return linear(x, weight, scope.param("bias", {out_features}, std::move(*bias_init)));
}

}  // namespace weft
