// The double-precision forms: direct and step by step.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/format.h"
#include "ops/causal_wkv/causal_wkv.h"

namespace weft {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// A term (n, d)·e^x of a numerator and its denominator.
struct Term {
  double n, d, x;
};

// Terms added up, scaled by the largest.
Term total(std::span<const Term> terms) {
  Term sum{0, 0, kNothing};
  for (const Term& term : terms) sum.x = std::max(sum.x, term.x);
  for (const Term& term : terms) {
    sum.n += std::exp(term.x - sum.x) * term.n;
    sum.d += std::exp(term.x - sum.x) * term.d;
  }
  return sum;
}

}  // namespace

void reference(const CausalWkv&, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto k = in[0].data<double>(), v = in[1].data<double>(), w = in[2].data<double>(), u = in[3].data<double>(),
             state = in[4].data<double>();
  const auto y = out[0].mutable_data<double>(), next = out[1].mutable_data<double>();
  const std::int64_t tokens = in[0].shape()[1], channels = in[0].shape()[2];
  std::ranges::copy(state, next.begin());
  for (std::int64_t row = 0; row < in[0].shape()[0] * channels; ++row) {
    const std::int64_t entry = row / channels, channel = row % channels;
    const auto token = [&](std::int64_t t) { return index((entry * tokens + t) * channels + channel); };
    const auto part = [&](std::int64_t i) { return index((entry * 3 + i) * channels + channel); };
    const double decay = w[index(channel)];
    const Term before{state[part(0)], state[part(1)], state[part(2)]};
    // What token t meets, without what it brings itself.
    const auto met_by = [&](std::int64_t t) {
      std::vector<Term> terms;
      if (before.n != 0 || before.d != 0) {
        terms.push_back({before.n, before.d, before.x - static_cast<double>(t) * decay});
      }
      for (std::int64_t i = 0; i < t; ++i) {
        terms.push_back({v[token(i)], 1, k[token(i)] - static_cast<double>(t - 1 - i) * decay});
      }
      return terms;
    };
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::vector<Term> terms = met_by(t);
      terms.push_back({v[token(t)], 1, u[index(channel)] + k[token(t)]});
      const Term sum = total(terms);
      y[token(t)] = sum.n / sum.d;
    }
    if (tokens == 0) continue;
    const Term sum = total(met_by(tokens));
    const bool is_empty = sum.x == kNothing;
    next[part(0)] = is_empty ? 0 : sum.n;
    next[part(1)] = is_empty ? 0 : sum.d;
    next[part(2)] = is_empty ? double{CausalWkv::kEmptyExponent} : sum.x;
  }
}

CausalWkvRecurrence::CausalWkvRecurrence(std::span<const double> w, std::span<const double> u)
    : w_(w.begin(), w.end()), u_(u.begin(), u.end()), state_(3 * w.size()) {
  require<ShapeError>(w.size() == u.size(), "causal_wkv", "u must be [C]=[{}], got {} elements", w.size(), u.size());
  std::fill(state_.begin() + static_cast<std::ptrdiff_t>(2 * w.size()), state_.end(),
            double{CausalWkv::kEmptyExponent});
}

void CausalWkvRecurrence::step(std::span<const double> k, std::span<const double> v, std::span<double> y) {
  const std::size_t channels = w_.size();
  require<ShapeError>(k.size() == channels && v.size() == channels && y.size() == channels, "causal_wkv",
                      "k, v and y must be [C]=[{}], got {}, {} and {} elements", channels, k.size(), v.size(),
                      y.size());
  for (std::size_t i = 0; i < channels; ++i) {
    double& numerator = state_[i];
    double& denominator = state_[channels + i];
    double& exponent = state_[2 * channels + i];
    const double met = numerator == 0 && denominator == 0 ? kNothing : exponent;
    const double own = std::max(met, u_[i] + k[i]);
    const double before = std::exp(met - own);
    const double self = std::exp(u_[i] + k[i] - own);
    const double result = (before * numerator + self * v[i]) / (before * denominator + self);

    y[i] = result;
    const double next = std::max(met - w_[i], k[i]);
    if (next == kNothing) continue;
    const double aged = std::exp(met - w_[i] - next);
    const double added = std::exp(k[i] - next);
    numerator = aged * numerator + added * v[i];
    denominator = aged * denominator + added;
    exponent = next;
  }
}

void CausalWkvRecurrence::restore(std::span<const double> state) {
  require<ShapeError>(state.size() == state_.size(), "causal_wkv", "a state must be [3,C]=[3,{}], got {} elements",
                      w_.size(), state.size());
  std::ranges::copy(state, state_.begin());
}

}  // namespace weft
