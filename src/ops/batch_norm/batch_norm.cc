#include "ops/batch_norm/batch_norm.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/format.h"
#include "ops/elementwise/elementwise.h"
#include "ops/layout/layout.h"

namespace weft {

namespace {

// The unbiased variance of one value is 0/0.
void require_batch(const Shape& x) {
  require<ShapeError>(row_count(x) >= 2, "batch_norm",
                      "the statistics of a batch want at least 2 values of each channel, got {} of {}; train on larger "
                      "batches",
                      row_count(x), x);
}

}  // namespace

std::vector<TensorType> infer(const BatchNorm& attributes, std::span<const TensorType> in) {
  require<ConfigError>(attributes.eps >= 0 && std::isfinite(attributes.eps), "batch_norm",
                       "eps must be finite and at least 0, got {}", attributes.eps);
  require<ShapeError>(in.size() == 5 || in.size() == 3, "batch_norm",
                      "takes x, weight, bias and, but in training, running_mean and running_var, got {} inputs",
                      in.size());
  const Shape& x = in[0].shape;
  require<ShapeError>(x.rank() >= 1, "batch_norm", "x must be [...,C], got a scalar");
  if (in.size() == 3) require_batch(x);
  constexpr std::array<std::string_view, 4> kNames = {"weight", "bias", "running_mean", "running_var"};
  for (std::size_t i = 1; i < in.size(); ++i) {
    require<ShapeError>(in[i].shape == Shape{x[-1]}, "batch_norm", "{} must be [C]=[{}], got {}", kNames[i - 1], x[-1],
                        in[i].shape);
  }
  return {in[0]};
}

std::vector<TensorType> infer(const BatchMoments&, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 1 && in[0].shape.rank() >= 1, "batch_moments", "takes one x [...,C]");
  require_batch(in[0].shape);
  return {{in[0].dtype, {2, in[0].shape[-1]}}};
}

std::int64_t macs(const BatchMoments&, std::span<const TensorType>) { return 0; }

void reference(const BatchMoments&, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto moments = out[0].mutable_data<double>();
  const std::size_t channels = moments.size() / 2;
  const auto rows = static_cast<double>(row_count(in[0].shape()));
  std::ranges::fill(moments, 0.0);
  for (std::size_t i = 0; i < x.size(); ++i) moments[i % channels] += x[i] / rows;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double difference = x[i] - moments[i % channels];
    moments[channels + i % channels] += difference * difference / (rows - 1);
  }
}

std::int64_t macs(const BatchNorm&, std::span<const TensorType>) { return 0; }

void reference(const BatchNorm& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto y = out[0].mutable_data<double>();
  const auto channels = static_cast<std::size_t>(in[0].shape()[-1]);
  std::vector<double> mean(channels), variance(channels);
  if (in.size() == 5) {
    std::ranges::copy(in[3].data<double>(), mean.begin());
    std::ranges::copy(in[4].data<double>(), variance.begin());
  } else {
    const auto rows = static_cast<double>(row_count(in[0].shape()));
    for (std::size_t i = 0; i < x.size(); ++i) mean[i % channels] += x[i] / rows;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double difference = x[i] - mean[i % channels];
      variance[i % channels] += difference * difference / rows;
    }
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % channels;
    const double deviation = std::sqrt(variance[c] + static_cast<double>(attributes.eps));
    y[i] = (x[i] - mean[c]) / deviation * in[1].data<double>()[c] + in[2].data<double>()[c];
  }
}

Value batch_norm(Value x, const Scope& scope, float eps) {
  constexpr float kMomentum = 0.1F;
  const std::int64_t c = x.shape()[-1];
  const Value weight = scope.param("weight", {c}, init::constant(1));
  const Value bias = scope.param("bias", {c}, init::constant(0));
  const Value mean = scope.buffer("running_mean", {c}, init::constant(0));
  const Value variance = scope.buffer("running_var", {c}, init::constant(1));
  if (!x.graph().training()) return batch_norm(x, weight, bias, mean, variance, eps);
  const Value moments = x.graph().add_one(BatchMoments{}, {x});
  const auto average = [&](Value buffer, std::int64_t row) {
    const Value next = reshape(slice(moments, 0, row, row + 1), {c});
    x.graph().update(buffer, add(scale(buffer, 1 - kMomentum), scale(next, kMomentum)));
  };
  average(mean, 0);
  average(variance, 1);
  return x.graph().add_one(BatchNorm{.eps = eps}, {x, weight, bias});
}

Value batch_norm(Value x, Value weight, Value bias, Value running_mean, Value running_var, float eps) {
  return x.graph().add_one(BatchNorm{.eps = eps}, {x, weight, bias, running_mean, running_var});
}

}  // namespace weft
