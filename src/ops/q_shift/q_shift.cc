#include "ops/q_shift/q_shift.h"

#include "core/format.h"

namespace weft {

std::array<std::int64_t, 5> QShift::cuts(std::int64_t channels) const {
  std::array<std::int64_t, 5> result;
  for (int i = 0; i < 5; ++i) {
    // Products from left to right, then truncated: where the official code cuts.
    result[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(static_cast<double>(channels) * gamma * i);
  }
  return result;
}

std::vector<TensorType> infer(const QShift& attributes, std::span<const TensorType> in) {
  const auto& [height, width, pixels, gamma] = attributes;
  require<ConfigError>(height >= 0 && width >= 0, "q_shift", "the grid must not be negative, got {} x {}", height,
                       width);
  require<ConfigError>(pixels >= 0, "q_shift", "pixels must be at least 0, got {}", pixels);
  require<ConfigError>(gamma >= 0 && gamma <= 0.25, "q_shift", "gamma must be from 0 to 1/4, got {}", gamma);
  require<ShapeError>(in.size() == 1, "q_shift", "takes x, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  const std::int64_t tokens = std::int64_t{height} * width;
  require<ShapeError>(x.rank() == 3 && x[1] == tokens, "q_shift",
                      "x must be [B,T,C]=[B,{},C] for a grid of {} x {}, got {}", tokens, height, width, x);
  return {in[0]};
}

std::int64_t macs(const QShift&, std::span<const TensorType>) { return 0; }

void reference(const QShift& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto y = out[0].mutable_data<double>();
  const std::int64_t height = attributes.height;
  const std::int64_t width = attributes.width;
  const std::int64_t p = attributes.pixels;
  const std::int64_t channels = in[0].shape()[2];
  const auto cuts = attributes.cuts(channels);
  std::size_t i = 0;
  for (std::int64_t b = 0; b < in[0].shape()[0]; ++b) {
    for (std::int64_t h = 0; h < height; ++h) {
      for (std::int64_t w = 0; w < width; ++w) {
        for (std::int64_t c = 0; c < channels; ++c, ++i) {
          std::int64_t from_h = h;
          std::int64_t from_w = w;
          if (c < cuts[1])
            from_w -= p;
          else if (c < cuts[2])
            from_w += p;
          else if (c < cuts[3])
            from_h -= p;
          else if (c < cuts[4])
            from_h += p;
          const bool inside = from_h >= 0 && from_h < height && from_w >= 0 && from_w < width;
          y[i] = inside ? x[static_cast<std::size_t>(((b * height + from_h) * width + from_w) * channels + c)] : 0;
        }
      }
    }
  }
}

Value q_shift(Value x, const QShift& attributes) { return x.graph().add_one(attributes, {x}); }

}  // namespace weft
