#include "ops/rotary/rotary.h"

#include <cmath>

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const Rotary&, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 2, "rotary", "takes x and angle, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  const Shape& angle = in[1].shape;
  require<ShapeError>(x.rank() == 3, "rotary", "x must be [B,T,C], got {}", x);
  require<ShapeError>(angle.rank() == 1 && angle[0] > 0 && angle[0] % 2 == 0 && x[2] % angle[0] == 0, "rotary",
                      "angle must be [D], D even and a divisor of {} channels, got {}", x[2], angle);
  return {in[0]};
}

std::int64_t macs(const Rotary&, std::span<const TensorType>) { return 0; }

void reference(const Rotary&, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto angle = in[1].data<double>();
  const auto y = out[0].mutable_data<double>();
  const auto tokens = static_cast<std::size_t>(in[0].shape()[1]);
  const auto channels = static_cast<std::size_t>(in[0].shape()[2]);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const bool first = i % channels % angle.size() % 2 == 0;
    const double turn = static_cast<double>(i / channels % tokens) * angle[i % channels % angle.size()];
    y[i] =
        first ? x[i] * std::cos(turn) - x[i + 1] * std::sin(turn) : x[i] * std::cos(turn) + x[i - 1] * std::sin(turn);
  }
}

Value rotary(Value x, Value angle) { return x.graph().add_one(Rotary{}, {x, angle}); }

}  // namespace weft
