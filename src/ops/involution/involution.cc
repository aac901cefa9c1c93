#include "ops/involution/involution.h"

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const Involution& attributes, std::span<const TensorType> in) {
  require<ConfigError>(attributes.kernel_size >= 1 && attributes.kernel_size % 2 == 1, "involution",
                       "kernel_size must be odd and at least 1, got {}", attributes.kernel_size);
  require<ShapeError>(in.size() == 2, "involution", "takes x and weight, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  const Shape& weight = in[1].shape;
  require<ShapeError>(x.rank() == 4 && x[3] >= 1, "involution", "x must be [B,H,W,C], C ≥ 1, got {}", x);
  const std::int64_t taps = attributes.taps();
  const bool fits = weight.rank() == 4 && weight == Shape{x[0], x[1], x[2], weight[3]} && weight[3] >= taps &&
                    weight[3] % taps == 0 && x[3] % (weight[3] / taps) == 0;
  require<ShapeError>(fits, "involution", "weight must be [B,H,W,G·k·k]=[{},{},{},G·{}], G a divisor of {}, got {}",
                      x[0], x[1], x[2], taps, x[3], weight);
  return {in[0]};
}

std::int64_t macs(const Involution& attributes, std::span<const TensorType> in) {
  return count_product({in[0].shape.elements(), attributes.taps()});
}

void reference(const Involution& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const Shape& shape = in[0].shape();
  const auto x = in[0].data<double>();
  const auto weight = in[1].data<double>();
  const auto y = out[0].mutable_data<double>();
  const std::int64_t height = shape[1];
  const std::int64_t width = shape[2];
  const std::int64_t channels = shape[3];
  const std::int64_t k = attributes.kernel_size;
  const std::int64_t kernels = in[1].shape()[3];
  const std::int64_t group = channels / (kernels / (k * k));  // channels to each
  for (std::int64_t flat = 0; flat < shape.elements(); ++flat) {
    const std::int64_t c = flat % channels;
    const std::int64_t place = flat / channels;
    double sum = 0;
    for (std::int64_t i = 0; i < k; ++i) {
      for (std::int64_t j = 0; j < k; ++j) {
        const std::int64_t row = place / width % height + i - k / 2;
        const std::int64_t column = place % width + j - k / 2;
        if (row < 0 || row >= height || column < 0 || column >= width) continue;
        const std::int64_t from = (place / width / height * height + row) * width + column;
        sum += x[static_cast<std::size_t>(from * channels + c)] *
               weight[static_cast<std::size_t>(place * kernels + (c / group * k + i) * k + j)];
      }
    }
    y[static_cast<std::size_t>(flat)] = sum;
  }
}

Value involution(Value x, Value weight, const Involution& attributes) {
  return x.graph().add_one(attributes, {x, weight});
}

}  // namespace weft
