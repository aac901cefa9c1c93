#include "ops/attention/attention.h"

#include <algorithm>
#include <cmath>

#include "core/format.h"

namespace weft {

double Attention::factor(std::int64_t head_channels) const {
  return scale != 0 ? double{scale} : 1 / std::sqrt(static_cast<double>(head_channels));
}

std::vector<TensorType> infer(const Attention& attributes, std::span<const TensorType> in) {
  require<ConfigError>(attributes.heads >= 1, "attention", "heads must be at least 1, got {}", attributes.heads);
  require<ConfigError>(std::isfinite(attributes.scale), "attention", "scale must be finite, got {}", attributes.scale);
  require<ShapeError>(in.size() == 3, "attention", "takes q, k and v, got {} inputs", in.size());
  const Shape& q = in[0].shape;
  const Shape& k = in[1].shape;
  const Shape& v = in[2].shape;
  require<ShapeError>(q.rank() == 3 && q[2] >= 1, "attention", "q must be [B,Tq,C] with C ≥ 1, got {}", q);
  require<ShapeError>(q[2] % attributes.heads == 0, "attention", "{} heads do not divide the {} channels of q",
                      attributes.heads, q[2]);
  require<ShapeError>(k.rank() == 3 && k[0] == q[0] && k[1] >= 1 && k[2] == q[2], "attention",
                      "k must be [{},Tk,{}] with Tk ≥ 1, got {}", q[0], q[2], k);
  require<ShapeError>(v == k, "attention", "v must be like k {}, got {}", k, v);
  require<ShapeError>(in[1].dtype == in[0].dtype && in[2].dtype == in[0].dtype, "attention",
                      "inputs must have one element type, got {}", fmt::join(in, " and "));
  return {in[0]};
}

std::int64_t macs(const Attention&, std::span<const TensorType> in) {
  return count_product({2, in[0].shape.elements(), in[1].shape[1]});
}

void reference(const Attention& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto q = in[0].data<double>();
  const auto k = in[1].data<double>();
  const auto v = in[2].data<double>();
  const auto y = out[0].mutable_data<double>();
  const auto queries = static_cast<std::size_t>(in[0].shape()[1]);
  const auto keys = static_cast<std::size_t>(in[1].shape()[1]);
  const auto channels = static_cast<std::size_t>(in[0].shape()[2]);
  const std::size_t head_channels = channels / static_cast<std::size_t>(attributes.heads);
  const double factor = attributes.factor(static_cast<std::int64_t>(head_channels));
  std::vector<double> weights(keys);
  for (std::size_t query = 0; query < static_cast<std::size_t>(in[0].shape()[0]) * queries; ++query) {
    const std::size_t first_key = query / queries * keys;
    for (std::size_t first = 0; first < channels; first += head_channels) {
      for (std::size_t key = 0; key < keys; ++key) {
        weights[key] = 0;
        for (std::size_t c = first; c < first + head_channels; ++c) {
          weights[key] += factor * q[query * channels + c] * k[(first_key + key) * channels + c];
        }
      }
      const double largest = *std::ranges::max_element(weights);
      double sum = 0;
      for (double& weight : weights) sum += weight = std::exp(weight - largest);
      for (std::size_t c = first; c < first + head_channels; ++c) {
        double total = 0;
        for (std::size_t key = 0; key < keys; ++key) total += weights[key] * v[(first_key + key) * channels + c];
        y[query * channels + c] = total / sum;
      }
    }
  }
}

Value attention(Value q, Value k, Value v, const Attention& attributes) {
  return q.graph().add_one(attributes, {q, k, v});
}

}  // namespace weft
