#include "ops/l2_norm/l2_norm.h"

#include <algorithm>
#include <cmath>

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const L2Norm& attributes, std::span<const TensorType> in) {
  require<ConfigError>(attributes.heads >= 1, "l2_norm", "heads must be at least 1, got {}", attributes.heads);
  require<ConfigError>(attributes.eps > 0 && std::isfinite(attributes.eps), "l2_norm",
                       "eps must be above 0 and finite, got {}", attributes.eps);
  require<ShapeError>(in.size() == 1, "l2_norm", "takes x, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  require<ShapeError>(x.rank() >= 1 && x[-1] % attributes.heads == 0, "l2_norm",
                      "x must be [...,C] with C a multiple of {}, got {}", attributes.heads, x);
  return {in[0]};
}

std::int64_t macs(const L2Norm&, std::span<const TensorType>) { return 0; }

void reference(const L2Norm& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto y = out[0].mutable_data<double>();
  if (x.empty()) return;
  const auto channels = static_cast<std::size_t>(in[0].shape()[-1] / attributes.heads);
  for (std::size_t first = 0; first < x.size(); first += channels) {
    double squares = 0;
    for (std::size_t c = first; c < first + channels; ++c) squares += x[c] * x[c];
    for (std::size_t c = first; c < first + channels; ++c) {
      y[c] = x[c] / std::max(std::sqrt(squares), double{attributes.eps});
    }
  }
}

Value l2_norm(Value x, int heads, float eps) { return x.graph().add_one(L2Norm{.heads = heads, .eps = eps}, {x}); }

}  // namespace weft
