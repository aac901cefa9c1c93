#include "ops/layer_norm/layer_norm.h"

#include <cmath>

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const LayerNorm& attributes, std::span<const TensorType> in) {
  require<ConfigError>(attributes.eps >= 0 && std::isfinite(attributes.eps), "layer_norm",
                       "eps must be at least 0, got {}", attributes.eps);
  require<ShapeError>(in.size() == 3, "layer_norm", "takes x, gamma and beta, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  require<ShapeError>(x.rank() >= 1, "layer_norm", "x must be [...,C], got {}", x);
  require<ShapeError>(in[1].shape == Shape{x[-1]}, "layer_norm", "gamma must be [C]=[{}], got {}", x[-1], in[1].shape);
  require<ShapeError>(in[2].shape == Shape{x[-1]}, "layer_norm", "beta must be [C]=[{}], got {}", x[-1], in[2].shape);
  return {in[0]};
}

std::int64_t macs(const LayerNorm&, std::span<const TensorType>) { return 0; }

void reference(const LayerNorm& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto gamma = in[1].data<double>();
  const auto beta = in[2].data<double>();
  const auto y = out[0].mutable_data<double>();
  const std::size_t c = gamma.size();
  for (std::size_t row = 0; row < x.size(); row += c) {
    double mean = 0;
    for (std::size_t i = 0; i < c; ++i) mean += x[row + i] / static_cast<double>(c);
    double variance = 0;
    for (std::size_t i = 0; i < c; ++i) variance += (x[row + i] - mean) * (x[row + i] - mean) / static_cast<double>(c);
    for (std::size_t i = 0; i < c; ++i) {
      y[row + i] = (x[row + i] - mean) / std::sqrt(variance + static_cast<double>(attributes.eps)) * gamma[i] + beta[i];
    }
  }
}

Value layer_norm(Value x, Value gamma, Value beta, float eps) {
  return x.graph().add_one(LayerNorm{.eps = eps}, {x, gamma, beta});
}

Value layer_norm(Value x, const Scope& scope, float eps) {
  const std::int64_t c = x.shape()[-1];
  const Value gamma = scope.param("weight", {c}, init::constant(1));
  const Value beta = scope.param("bias", {c}, init::constant(0));
  return layer_norm(x, gamma, beta, eps);
}

}  // namespace weft
