#include "ops/interpolate/interpolate.h"

#include <algorithm>
#include <cmath>

#include "core/format.h"

namespace weft {
namespace {

double weight_at(InterpolateMode mode, double distance) {
  const double d = std::abs(distance);
  if (mode == InterpolateMode::kBilinear) return std::max(0.0, 1 - d);
  constexpr double kA = -0.75;
  if (d <= 1) return (kA + 2) * d * d * d - (kA + 3) * d * d + 1;
  return d < 2 ? kA * d * d * d - 5 * kA * d * d + 8 * kA * d - 4 * kA : 0;
}

double source_of(std::int64_t i, std::int64_t in, std::int64_t out) {
  return (static_cast<double>(i) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5;
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
  for (std::int64_t i = 0; i < out[0].elements(); ++i) {
    const std::int64_t pixel = i / channels;
    const double sx = source_of(pixel % attributes.out_w, width, attributes.out_w);
    const double sy = source_of(pixel / attributes.out_w % attributes.out_h, height, attributes.out_h);
    const std::int64_t image = pixel / attributes.out_w / attributes.out_h;
    double sum = 0;
    for (auto p = static_cast<std::int64_t>(std::floor(sy)) - 1; static_cast<double>(p) < sy + 2; ++p) {
      for (auto q = static_cast<std::int64_t>(std::floor(sx)) - 1; static_cast<double>(q) < sx + 2; ++q) {
        const double weight = weight_at(attributes.mode, sy - static_cast<double>(p)) *
                              weight_at(attributes.mode, sx - static_cast<double>(q));
        const std::int64_t row = std::clamp<std::int64_t>(p, 0, height - 1);
        const std::int64_t column = std::clamp<std::int64_t>(q, 0, width - 1);
        sum +=
            weight * x[static_cast<std::size_t>(((image * height + row) * width + column) * channels + i % channels)];
      }
    }
    y[static_cast<std::size_t>(i)] = sum;
  }
}

Value interpolate(Value x, const Interpolate& attributes) { return x.graph().add_one(attributes, {x}); }

}  // namespace weft
