// The gradient of Bi-WKV in double precision: direct.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/bi_wkv/bi_wkv_grad.h"

namespace weft {
namespace {

// One term sign·e^{exponent} of f(t,i)·e^{k_i}, and the derivatives of its exponent.
struct TermWithSlopes {
  double exponent, sign;
  double by_w, by_u;
};

// One channel of one batch entry.
struct ChannelKeys {
  const double* k;
  std::int64_t tokens, stride;
  double w, u;
};

// Calls visit(term, i) for every term of Σ_i f(t,i) e^{k_i}.
template <class Visit>
void for_each_sloped_term(const ChannelKeys& c, std::int64_t t, Wkv form, Visit visit) {
  const std::int64_t run = released_kernel_run(c.tokens);
  const std::int64_t s = t / run * run;
  for (std::int64_t i = 0; i < c.tokens; ++i) {
    const double k = c.k[i * c.stride];
    const auto distance = static_cast<double>(std::abs(t - i));
    const bool neighbour_is_whole = form == Wkv::kPaper || (i >= s && i < t);
    const double aged = distance - (neighbour_is_whole ? 1 : 0);
    visit(i == t ? TermWithSlopes{k + c.u, 1, 0, 1} : TermWithSlopes{k - aged * c.w, 1, -aged, 0}, i);
    if (form == Wkv::kReleasedKernel && i > s && i <= t) {
      visit(TermWithSlopes{k + distance * c.w, 1, distance, 0}, i);
      visit(TermWithSlopes{k + (distance + 1) * c.w, -1, distance + 1, 0}, i);
    }
  }
}

}  // namespace

void bi_wkv_backward_reference(Wkv form, const Shape& shape, const BiWkvBackwardInput<double>& in,
                               const BiWkvGradients<double>& out) {
  const std::int64_t tokens = shape[1];
  const std::int64_t channels = shape[2];
  for (const std::span<double> gradient : {out.k, out.v, out.w, out.u}) std::ranges::fill(gradient, 0);
  for (std::int64_t row = 0; row < shape[0] * channels; ++row) {
    const std::int64_t channel = row % channels;
    const std::int64_t first = row / channels * tokens * channels + channel;
    const auto of_token = [&](std::int64_t i) { return static_cast<std::size_t>(first + i * channels); };
    const auto of_channel = static_cast<std::size_t>(channel);
    const ChannelKeys c{
        .k = in.k.data() + first, .tokens = tokens, .stride = channels, .w = in.w[of_channel], .u = in.u[of_channel]};
    for (std::int64_t t = 0; t < tokens; ++t) {
      double largest = -std::numeric_limits<double>::infinity();
      for_each_sloped_term(
          c, t, form, [&](const TermWithSlopes& term, std::int64_t) { largest = std::max(largest, term.exponent); });
      const auto weight = [&](const TermWithSlopes& term) { return term.sign * std::exp(term.exponent - largest); };
      double numerator = 0;
      double denominator = 0;
      for_each_sloped_term(c, t, form, [&](const TermWithSlopes& term, std::int64_t i) {
        numerator += weight(term) * in.v[of_token(i)];
        denominator += weight(term);
      });
      const double y = numerator / denominator;
      const double g = in.gy[of_token(t)] / denominator;
      for_each_sloped_term(c, t, form, [&](const TermWithSlopes& term, std::int64_t i) {
        const double by_exponent = weight(term) * g * (in.v[of_token(i)] - y);
        out.v[of_token(i)] += weight(term) * g;
        out.k[of_token(i)] += by_exponent;
        out.w[of_channel] += by_exponent * term.by_w;
        out.u[of_channel] += by_exponent * term.by_u;
      });
    }
  }
}

}  // namespace weft
