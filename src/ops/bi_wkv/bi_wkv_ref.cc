// The double-precision forms: direct and step by step.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/format.h"
#include "ops/bi_wkv/bi_wkv.h"

namespace weft {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

// One signed term sign·e^exponent of a weight f(t,i)·e^{k_i}.
struct Term {
  double exponent;
  double sign;
};

// 1 − e^w as a signed power of e.
Term one_minus_exp(double w) {
  if (w == 0) return {kNothing, 0};
  return w > 0 ? Term{w + std::log1p(-std::exp(-w)), -1} : Term{std::log(-std::expm1(w)), 1};
}

// One channel of one batch entry.
struct Channel {
  const double* k;
  const double* v;
  std::int64_t tokens, stride;
  double w, u;

  double key(std::int64_t i) const { return k[i * stride]; }
};

// Calls visit(term, i) for every term of Σ_i f(t,i) e^{k_i}.
template <class Visit>
void for_each_term(const Channel& c, std::int64_t t, Wkv form, Visit visit) {
  if (form == Wkv::kPaper) {
    for (std::int64_t i = 0; i < c.tokens; ++i) {
      const auto distance = static_cast<double>(std::abs(t - i));
      visit(Term{c.key(i) + (i == t ? c.u : -(distance - 1) * c.w), 1}, i);
    }
    return;
  }
  const std::int64_t run = released_kernel_run(c.tokens);
  const std::int64_t s = t / run * run;
  const Term rest = one_minus_exp(c.w);
  for (std::int64_t i = 0; i < c.tokens; ++i) {
    const auto distance = static_cast<double>(std::abs(t - i));
    const double extra = i >= s && i < t ? 1 : 0;
    visit(Term{c.key(i) + (i == t ? c.u : -(distance - extra) * c.w), 1}, i);
    if (i > s && i <= t) visit(Term{c.key(i) + distance * c.w + rest.exponent, rest.sign}, i);
  }
}

double direct(const Channel& c, std::int64_t t, Wkv form) {
  double largest = kNothing;
  for_each_term(c, t, form, [&](const Term& term, std::int64_t) { largest = std::max(largest, term.exponent); });
  double numerator = 0;
  double denominator = 0;
  for_each_term(c, t, form, [&](const Term& term, std::int64_t i) {
    const double weight = term.sign * std::exp(term.exponent - largest);
    numerator += weight * c.v[i * c.stride];
    denominator += weight;
  });
  return numerator / denominator;
}

std::vector<double> map(std::span<const double> values, double (*f)(double)) {
  std::vector<double> out(values.size());
  std::ranges::transform(values, out.begin(), f);
  return out;
}

}  // namespace

void reference(const BiWkv& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto y = out[0].mutable_data<double>();
  const Shape& shape = in[0].shape();
  const std::int64_t tokens = shape[1];
  const std::int64_t channels = shape[2];
  for (std::int64_t row = 0; row < shape[0] * channels; ++row) {
    const std::int64_t channel = row % channels;
    const std::int64_t first = row / channels * tokens * channels + channel;
    const Channel c{.k = in[0].data<double>().data() + first,
                    .v = in[1].data<double>().data() + first,
                    .tokens = tokens,
                    .stride = channels,
                    .w = in[2].data<double>()[static_cast<std::size_t>(channel)],
                    .u = in[3].data<double>()[static_cast<std::size_t>(channel)]};
    for (std::int64_t t = 0; t < tokens; ++t) {
      y[static_cast<std::size_t>(first + t * channels)] = direct(c, t, attributes.wkv);
    }
  }
}

BiWkvRecurrence::BiWkvRecurrence(std::span<const double> k, std::span<const double> v, std::span<const double> w,
                                 std::span<const double> u)
    : k_(k),
      v_(v),
      decay_(map(w, [](double x) { return std::exp(-x); })),
      growth_(map(w, [](double x) { return std::exp(x); })),
      bonus_(map(u, [](double x) { return std::exp(x); })),
      shift_(w.size(), kNothing),
      a_(w.size()),
      b_(w.size()),
      c_(w.size()),
      d_(w.size()) {
  const std::size_t channels = w.size();
  require<ShapeError>(u.size() == channels && k.size() == v.size() && channels > 0 && k.size() % channels == 0,
                      "bi_wkv", "k and v must be [T,C] and w and u [C], got {}, {}, {} and {} elements", k.size(),
                      v.size(), w.size(), u.size());
  for (std::size_t i = 0; i < k.size(); ++i) shift_[i % channels] = std::max(shift_[i % channels], k[i]);
  for (std::size_t i = k.size(); i-- > 0;) {
    const std::size_t channel = i % channels;
    const double e = std::exp(k[i] - shift_[channel]);
    // Before the first step token 0 stands where step() expects it: at distance one.
    c_[channel] = decay_[channel] * c_[channel] + e * v[i];
    d_[channel] = decay_[channel] * d_[channel] + e;
  }
}

void BiWkvRecurrence::step(std::span<double> y) {
  const std::size_t channels = decay_.size();
  require<ShapeError>(y.size() == channels, "bi_wkv", "y must be [C]=[{}], got {} elements", channels, y.size());
  require<ShapeError>(next_ < k_.size(), "bi_wkv", "a sequence of {} tokens has no more steps", k_.size() / channels);
  for (std::size_t i = 0; i < channels; ++i, ++next_) {
    const double e = std::exp(k_[next_] - shift_[i]);
    const double ev = e * v_[next_];
    c_[i] = growth_[i] * (c_[i] - ev);
    d_[i] = growth_[i] * (d_[i] - e);
    y[i] = (a_[i] + bonus_[i] * ev + c_[i]) / (b_[i] + bonus_[i] * e + d_[i]);
    a_[i] = decay_[i] * a_[i] + ev;
    b_[i] = decay_[i] * b_[i] + e;
  }
}

}  // namespace weft
