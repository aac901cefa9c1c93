#include "ops/interpolate/interpolate.h"

#include <algorithm>
#include <cmath>

#include "core/format.h"

namespace weft {
namespace {

double cubic(double a, double distance) {
  const double d = std::abs(distance);
  if (d <= 1) return (a + 2) * d * d * d - (a + 3) * d * d + 1;
  return d < 2 ? a * d * d * d - 5 * a * d * d + 8 * a * d - 4 * a : 0;
}

double weight_at(InterpolateMode mode, double distance) {
  return mode == InterpolateMode::kBilinear ? std::max(0.0, 1 - std::abs(distance)) : cubic(-0.75, distance);
}

// What each of the `in` positions along an axis contributes to position `i` of `out`.
std::vector<double> axis_weights(InterpolateMode mode, std::int64_t i, std::int64_t in, std::int64_t out) {
  std::vector<double> weights(static_cast<std::size_t>(in));
  const double step = static_cast<double>(in) / static_cast<double>(out);
  const double source = (static_cast<double>(i) + 0.5) * step - 0.5;
  if (mode == InterpolateMode::kBicubicAntialias) {
    double sum = 0;
    for (std::int64_t p = 0; p < in; ++p) {
      sum += weights[static_cast<std::size_t>(p)] =
          cubic(-0.5, (static_cast<double>(p) - source) / std::max(step, 1.0));
    }
    for (double& weight : weights) weight /= sum;
    return weights;
  }
  for (auto p = static_cast<std::int64_t>(std::floor(source)) - 1; static_cast<double>(p) < source + 2; ++p) {
    weights[static_cast<std::size_t>(std::clamp<std::int64_t>(p, 0, in - 1))] +=
        weight_at(mode, source - static_cast<double>(p));
  }
  return weights;
}

}  // namespace

std::vector<TensorType> infer(const Interpolate& attributes, std::span<const TensorType> in) {
  const auto& [mode, out_h, out_w] = attributes;
  require<ConfigError>(out_h >= 1 && out_w >= 1, "interpolate", "the result must be at least 1 x 1, got {} x {}", out_h,
                       out_w);
  require<ShapeError>(in.size() == 1, "interpolate", "takes x, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  require<ShapeError>(x.rank() == 4 && x[1] >= 1 && x[2] >= 1, "interpolate",
                      "x must be [B,H,W,C] with H and W ≥ 1, got {}", x);
  return {{in[0].dtype, {x[0], out_h, out_w, x[3]}}};
}

std::int64_t macs(const Interpolate&, std::span<const TensorType>) { return 0; }

void reference(const Interpolate& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const Shape& shape = in[0].shape();
  const auto x = in[0].data<double>();
  const auto y = out[0].mutable_data<double>();
  const std::int64_t height = shape[1];
  const std::int64_t width = shape[2];
  const std::int64_t channels = shape[3];
  std::int64_t i = 0;
  for (std::int64_t image = 0; image < shape[0]; ++image) {
    for (std::int64_t out_row = 0; out_row < attributes.out_h; ++out_row) {
      const std::vector<double> rows = axis_weights(attributes.mode, out_row, height, attributes.out_h);
      for (std::int64_t out_column = 0; out_column < attributes.out_w; ++out_column) {
        const std::vector<double> columns = axis_weights(attributes.mode, out_column, width, attributes.out_w);
        for (std::int64_t channel = 0; channel < channels; ++channel, ++i) {
          double sum = 0;
          for (std::int64_t row = 0; row < height; ++row) {
            for (std::int64_t column = 0; column < width; ++column) {
              const std::int64_t from = ((image * height + row) * width + column) * channels + channel;
              sum += rows[static_cast<std::size_t>(row)] * columns[static_cast<std::size_t>(column)] *
                     x[static_cast<std::size_t>(from)];
            }
          }
          y[static_cast<std::size_t>(i)] = sum;
        }
      }
    }
  }
}

Value interpolate(Value x, const Interpolate& attributes) { return x.graph().add_one(attributes, {x}); }

}  // namespace weft
