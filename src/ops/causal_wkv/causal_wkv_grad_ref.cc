// The gradient of the causal WKV in double precision: direct.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/causal_wkv/causal_wkv_grad.h"

namespace weft {

void causal_wkv_backward_reference(const Shape& shape, const CausalWkvBackwardInput<double>& in,
                                   const CausalWkvGradients<double>& out) {
  const auto index = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  const std::int64_t tokens = shape[1], channels = shape[2];
  for (const std::span<double> gradient : {out.k, out.v, out.w, out.u, out.state}) std::ranges::fill(gradient, 0);
  for (std::int64_t row = 0; row < shape[0] * channels; ++row) {
    const std::int64_t entry = row / channels, channel = row % channels;
    const auto token = [&](std::int64_t t) { return index((entry * tokens + t) * channels + channel); };
    const auto part = [&](std::int64_t i) { return index((entry * 3 + i) * channels + channel); };
    const double aa = in.state[part(0)], bb = in.state[part(1)], pp = in.state[part(2)];
    const std::int64_t first = aa == 0 && bb == 0 ? 0 : -1;  // the state is token −1, if it is not empty
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto exponent = [&](std::int64_t i) {
        if (i == t) return in.u[index(channel)] + in.k[token(t)];
        return (i < 0 ? pp : in.k[token(i)]) - static_cast<double>(t - 1 - i) * in.w[index(channel)];
      };
      double largest = -std::numeric_limits<double>::infinity(), numerator = 0, denominator = 0;
      for (std::int64_t i = first; i <= t; ++i) largest = std::max(largest, exponent(i));
      const auto weight = [&](std::int64_t i) { return std::exp(exponent(i) - largest); };
      for (std::int64_t i = first; i <= t; ++i) {
        numerator += weight(i) * (i < 0 ? aa : in.v[token(i)]);
        denominator += weight(i) * (i < 0 ? bb : 1);
      }
      const double y = numerator / denominator;
      const double g = in.gy[token(t)] / denominator;
      for (std::int64_t i = first; i <= t; ++i) {
        const double by_exponent = weight(i) * g * (i < 0 ? aa - bb * y : in.v[token(i)] - y);
        if (i < 0) {
          out.state[part(0)] += weight(i) * g;
          out.state[part(1)] -= weight(i) * g * y;
          out.state[part(2)] += by_exponent;
        } else {
          out.v[token(i)] += weight(i) * g;
          out.k[token(i)] += by_exponent;
        }
        if (i < t) {
          out.w[index(channel)] -= static_cast<double>(t - 1 - i) * by_exponent;
        } else {
          out.u[index(channel)] += by_exponent;
        }
      }
    }
  }
}

}  // namespace weft
