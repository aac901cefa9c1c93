#include "ops/token_shift/token_shift.h"

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const TokenShift&, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 2, "token_shift", "takes x and the token before it, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  require<ShapeError>(x.rank() == 3, "token_shift", "x must be [B,T,C], got {}", x);
  const Shape previous{x[0], x[2]};
  require<ShapeError>(in[1].shape == previous, "token_shift", "the token before must be [B,C]={}, got {}", previous,
                      in[1].shape);
  return {in[0]};
}

std::int64_t macs(const TokenShift&, std::span<const TensorType>) { return 0; }

void reference(const TokenShift&, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>(), previous = in[1].data<double>();
  const auto y = out[0].mutable_data<double>();
  const std::int64_t tokens = in[0].shape()[1], channels = in[0].shape()[2];
  for (std::int64_t i = 0; i < in[0].elements(); ++i) {
    const std::int64_t token = i / channels % tokens, entry = i / channels / tokens, channel = i % channels;
    y[static_cast<std::size_t>(i)] = token == 0 ? previous[static_cast<std::size_t>(entry * channels + channel)]
                                                : x[static_cast<std::size_t>(i - channels)];
  }
}

Value token_shift(Value x, Value previous) { return x.graph().add_one(TokenShift{}, {x, previous}); }

}  // namespace weft
