// The log-space path of the gradient of Bi-WKV for one instruction set, for keys of any range: the sums of
// bi_wkv_grad-inl.h in f64, each as a numerator's and a denominator's part times e^exponent. Included once per target,
// as Highway wants it.
#include <cmath>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "ops/bi_wkv/bi_wkv_grad_plan.h"
#include "ops/bi_wkv/bi_wkv_grad_sums-inl.h"

// clang-format off
#if defined(WEFT_BI_WKV_GRAD_LOG_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_BI_WKV_GRAD_LOG_INL_H_
#undef WEFT_BI_WKV_GRAD_LOG_INL_H_
#else
#define WEFT_BI_WKV_GRAD_LOG_INL_H_
#endif
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace weft::bi_wkv_grad {
namespace HWY_NAMESPACE {

constexpr double kEmpty = -1e300;  // the exponent of an empty sum

// exp, but NaN for NaN.
HWY_INLINE V64 exp_or_nan(V64 x) {
  const D64 d;
  return hn::IfThenElse(hn::Eq(x, x), hn::Exp(d, x), x);
}

struct LogSum {
  V64 n, d, x;

  // times e^by
  HWY_INLINE LogSum scaled(V64 by) const { return {n, d, hn::Add(x, by)}; }
  HWY_INLINE LogSum times(V64 sign) const { return {hn::Mul(sign, n), hn::Mul(sign, d), x}; }
};

HWY_INLINE LogSum empty_sum() { return {hn::Zero(D64()), hn::Zero(D64()), hn::Set(D64(), kEmpty)}; }

HWY_INLINE LogSum operator+(const LogSum& a, const LogSum& b) {
  const auto difference = hn::Sub(a.x, b.x);
  const auto one = hn::Set(D64(), 1.0);
  const auto e = exp_or_nan(hn::Neg(hn::Abs(difference)));
  const auto a_leads = hn::Gt(difference, hn::Zero(D64()));
  const auto of_a = hn::IfThenElse(a_leads, one, e);
  const auto of_b = hn::IfThenElse(a_leads, e, one);
  return {hn::MulAdd(a.n, of_a, hn::Mul(b.n, of_b)), hn::MulAdd(a.d, of_a, hn::Mul(b.d, of_b)),
          hn::IfThenElse(a_leads, a.x, b.x)};
}

// e^by·(the products of the numerators and of the denominators)
HWY_INLINE V64 product(const LogSum& a, const LogSum& b, V64 by) {
  const auto e = exp_or_nan(hn::Add(by, hn::Add(a.x, b.x)));
  return hn::Mul(e, hn::MulAdd(a.n, b.n, hn::Mul(a.d, b.d)));
}

HWY_INLINE LogSum load_sum(const double* row) {
  const std::size_t lanes = hn::Lanes(D64());
  return {hn::Load(D64(), row), hn::Load(D64(), row + lanes), hn::Load(D64(), row + 2 * lanes)};
}
HWY_INLINE void store_sum(const LogSum& sum, double* row) {
  const std::size_t lanes = hn::Lanes(D64());
  hn::Store(sum.n, D64(), row);
  hn::Store(sum.d, D64(), row + lanes);
  hn::Store(sum.x, D64(), row + 2 * lanes);
}

// Lanes i… of a column.
template <bool kReleased>
struct LogLanes {
  const Column& column;
  std::int64_t i;
  std::size_t count;
  V64 w, u, minus_w;
  V64 rest_exponent, rest_sign;  // 1 − e^w = rest_sign·e^rest_exponent

  LogLanes(const Column& owner, std::int64_t first_lane)
      : column(owner), i(first_lane), count(static_cast<std::size_t>(owner.job.width(owner.block) - first_lane)) {
    alignas(64) float w_row[kBlock], u_row[kBlock];
    column.job.load_channels(column.job.w, column.block, w_row);
    column.job.load_channels(column.job.u, column.block, u_row);
    w = hn::PromoteTo(D64(), hn::Load(kHalf, w_row + i));
    u = hn::PromoteTo(D64(), hn::Load(kHalf, u_row + i));
    minus_w = hn::Neg(w);
    alignas(64) double exponent[kBlock], sign[kBlock];
    for (std::size_t lane = 0; lane < hn::Lanes(D64()); ++lane) {
      const double x = w_row[static_cast<std::size_t>(i) + lane];
      sign[lane] = x > 0 ? -1 : 1;
      exponent[lane] = x == 0 ? kEmpty : x > 0 ? x + std::log1p(-std::exp(-x)) : std::log(-std::expm1(x));
    }
    rest_exponent = hn::Load(D64(), exponent);
    rest_sign = hn::Load(D64(), sign);
  }

  static constexpr hn::Rebind<float, D64> kHalf = {};
  static constexpr std::int64_t kSlots = kReleased ? kLogReleasedSlots : kLogPaperSlots;

  std::int64_t element(std::int64_t t) const { return column.element() + t * column.job.channels + i; }
  double* row(std::int64_t t, LogSlot slot) const {
    return reinterpret_cast<double*>(column.buffer) + (t * kSlots + slot) * static_cast<std::int64_t>(hn::Lanes(D64()));
  }
  HWY_INLINE V64 load(const float* from, std::int64_t t) const {
    return hn::PromoteTo(D64(), load_lanes(kHalf, from + element(t), count));
  }
  HWY_INLINE void store(V64 x, float* to, std::int64_t t) const {
    store_lanes(hn::DemoteTo(kHalf, x), kHalf, to + element(t), count);
  }
  // x_t
  HWY_INLINE LogSum token(std::int64_t t) const {
    return {load(column.job.v, t), hn::Set(D64(), 1.0), load(column.job.k, t)};
  }
};

template <bool kReleased>
HWY_INLINE void log_behind(const LogLanes<kReleased>& lanes) {
  LogSum behind = empty_sum();
  for (std::int64_t t = lanes.column.job.tiling.tokens() - 1; t >= 0; --t) {
    store_sum(behind, lanes.row(t, kLogBefore));
    behind = behind.scaled(lanes.minus_w) + lanes.token(t);
  }
}

// Of gw and gu what sweep 2 or 3 gives.
struct LogPartial {
  V64 w, u;
};

template <bool kReleased>
HWY_INLINE LogPartial log_gradients(const LogLanes<kReleased>& lanes) {
  const std::int64_t run_length = lanes.column.job.tiling.run();
  const auto minus_w = lanes.minus_w;
  LogSum before = empty_sum(), run = before, rest = before, gradients = before;
  auto gw = hn::Zero(D64()), gu = gw;
  for (std::int64_t t = 0; t < lanes.column.job.tiling.tokens(); ++t) {
    const LogSum x = lanes.token(t);
    const LogSum behind = load_sum(lanes.row(t, kLogBefore));
    LogSum sum = x.scaled(lanes.u) + (kReleased ? behind.scaled(minus_w) : behind);
    if constexpr (kReleased) {
      store_sum(run, lanes.row(t, kLogRun));
      if (t % run_length == 0) {
        before = before + run.scaled(minus_w);
        run = rest = empty_sum();
      } else {
        rest = rest.scaled(lanes.w) + x;
      }
      store_sum(rest, lanes.row(t, kLogRest));
      sum = sum + run + rest.times(lanes.rest_sign).scaled(lanes.rest_exponent);
    }
    sum = sum + before;
    store_sum(before, lanes.row(t, kLogBefore));

    const auto g = hn::Div(lanes.load(lanes.column.job.gy, t), sum.d);
    const LogSum gradient = {g, hn::Neg(hn::Mul(g, hn::Div(sum.n, sum.d))), hn::Neg(sum.x)};
    store_sum(gradient, lanes.row(t, kLogGradient));
    gu = hn::Add(gu, product(x, gradient, lanes.u));
    const LogSum from_before = kReleased ? gradients.scaled(minus_w) : gradients;
    store_sum(from_before + gradient.scaled(lanes.u), lanes.row(t, kLogTransposed));
    if constexpr (kReleased) {
      gw = hn::Sub(gw, product(behind, from_before + gradient, minus_w));
      gw = hn::Sub(gw, product(rest, gradient, lanes.w));
      before = before.scaled(minus_w);
      run = run.scaled(minus_w) + x;
    } else {
      gw = hn::Sub(gw, product(behind, from_before, minus_w));
      before = before.scaled(minus_w) + x;
    }
    gradients = gradients.scaled(minus_w) + gradient;
  }
  return {gw, gu};
}

template <bool kReleased>
HWY_INLINE V64 log_results(const LogLanes<kReleased>& lanes) {
  const std::int64_t run_length = lanes.column.job.tiling.run();
  const auto minus_w = lanes.minus_w;
  LogSum all = empty_sum(), run = all, rest = all;
  auto gw = hn::Zero(D64());
  for (std::int64_t t = lanes.column.job.tiling.tokens() - 1; t >= 0; --t) {
    const LogSum gradient = load_sum(lanes.row(t, kLogGradient));
    LogSum transposed = load_sum(lanes.row(t, kLogTransposed)) + (kReleased ? run : all);
    gw = hn::Sub(gw, product(load_sum(lanes.row(t, kLogBefore)), all, minus_w));
    all = all.scaled(minus_w) + gradient;
    if constexpr (kReleased) {
      const LogSum run_sum = load_sum(lanes.row(t, kLogRun));
      const auto of_rest = product(load_sum(lanes.row(t, kLogRest)), rest, hn::Add(lanes.w, lanes.rest_exponent));
      gw = hn::MulAdd(lanes.rest_sign, of_rest, gw);
      if (t % run_length == 0) {
        gw = hn::Sub(gw, product(run_sum, all, minus_w));
        run = all.scaled(minus_w);
        rest = empty_sum();
      } else {
        gw = hn::Sub(gw, product(run_sum, run, minus_w));
        run = run.scaled(minus_w) + gradient;
        rest = rest.scaled(lanes.w) + gradient;
        transposed = transposed + rest.times(lanes.rest_sign).scaled(lanes.rest_exponent);
      }
    }
    const auto weight = exp_or_nan(hn::Add(transposed.x, lanes.load(lanes.column.job.k, t)));
    const auto gv = hn::Mul(weight, transposed.n);
    lanes.store(hn::MulAdd(lanes.load(lanes.column.job.v, t), gv, hn::Mul(weight, transposed.d)), lanes.column.job.gk,
                t);
    lanes.store(gv, lanes.column.job.gv, t);
  }
  return gw;
}

template <bool kReleased>
HWY_INLINE void log_column_of_form(const Column& column) {
  Partial& partial = column.partial();
  for (std::int64_t i = 0; i < column.job.width(column.block); i += static_cast<std::int64_t>(hn::Lanes(D64()))) {
    const LogLanes<kReleased> lanes(column, i);
    log_behind(lanes);
    const LogPartial sums = log_gradients(lanes);
    hn::Store(hn::Add(sums.w, log_results(lanes)), D64(), partial.w + i);
    hn::Store(sums.u, D64(), partial.u + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weft::bi_wkv_grad
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
