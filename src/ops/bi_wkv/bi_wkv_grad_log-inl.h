// The log-space path of the gradient of Bi-WKV for one instruction set, for keys of any range: the sums of
// bi_wkv_grad-inl.h in f64, each as a numerator's and a denominator's part times e^exponent. Included once per target,
// as Highway wants it.
#include <cmath>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernel/log_sum-inl.h"
#include "ops/bi_wkv/bi_wkv_grad-inl.h"
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

using weft::HWY_NAMESPACE::empty_sum;
using weft::HWY_NAMESPACE::exp_or_nan;
using weft::HWY_NAMESPACE::kEmptyExponent;
using weft::HWY_NAMESPACE::LogSum;
using weft::HWY_NAMESPACE::product;

HWY_INLINE LogSum load_sum(const double* row) {
  return weft::HWY_NAMESPACE::load_sum(row, static_cast<std::int64_t>(hn::Lanes(D64())));
}
HWY_INLINE void store_sum(const LogSum& sum, double* row) {
  weft::HWY_NAMESPACE::store_sum(sum, row, static_cast<std::int64_t>(hn::Lanes(D64())));
}

// What goes from token to token, and is noted at the borders of segments: of sweep 1, and of sweep 2.
struct LogCheckpoint {
  LogSum behind;
  LogSum before, run, rest, gradients;
};
static_assert(sizeof(LogCheckpoint) <= kCheckpointBytes);

// The sweeps over the segments of lanes i… of a column.
template <bool kReleased>
class LogSweeps {
 public:
  LogSweeps(const Column& column, std::int64_t lane)
      : column_(column), i_(lane), count_(static_cast<std::size_t>(column.job.width(column.block) - lane)) {
    const Job& job = column.job;
    alignas(64) float w[kBlock], u[kBlock];
    job.load_channels(job.w, column.block, w);
    job.load_channels(job.u, column.block, u);
    w_ = load_f64(w + i_);
    u_ = load_f64(u + i_);
    minus_w_ = hn::Neg(w_);
    alignas(64) double exponent[kBlock], sign[kBlock];
    for (std::size_t j = 0; j < kBlock; ++j) {
      const double x = w[j];
      sign[j] = x > 0 ? -1 : 1;
      exponent[j] = x == 0 ? kEmptyExponent : x > 0 ? x + std::log1p(-std::exp(-x)) : std::log(-std::expm1(x));
    }
    rest_exponent_ = hn::Load(D64(), exponent + i_);
    rest_sign_ = hn::Load(D64(), sign + i_);
    const LogSum empty = empty_sum();
    sums_ = {empty, empty, empty, empty, empty};
    all_ = run_ = rest_ = empty;
    gw_ = gu_ = hn::Zero(D64());
  }

  // All rounds (bi_wkv_grad_plan.h). What was swept last is in the buffer still.
  HWY_INLINE void run() {
    const std::int64_t last = column_.job.segments.count() - 1;
    for (std::int64_t i = last; i >= 0; --i) {
      noted(i).behind = sums_.behind;
      behind(i);
    }
    for (std::int64_t i = 0; i <= last; ++i) {
      sums_.behind = noted(i).behind;
      noted(i) = sums_;
      if (i > 0) behind(i);
      if (i == last) gw_ = gu_ = hn::Zero(D64());  // so far they are those of the second round
      gradients(i);
    }
    for (std::int64_t i = last; i >= 0; --i) {
      if (i < last) {
        sums_ = noted(i);
        behind(i);
        gradients(i);
      }
      results(i);
    }
    hn::Store(gw_, D64(), column_.partial().w + i_);
    hn::Store(gu_, D64(), column_.partial().u + i_);
  }

 private:
  HWY_NOINLINE void behind(std::int64_t segment);
  HWY_NOINLINE void gradients(std::int64_t segment);
  HWY_NOINLINE void results(std::int64_t segment);

  static constexpr std::int64_t kSlots = kReleased ? kLogReleasedSlots : kLogPaperSlots;

  LogCheckpoint& noted(std::int64_t segment) const {
    return *reinterpret_cast<LogCheckpoint*>(column_.checkpoint(segment));
  }
  std::int64_t begin(std::int64_t segment) const { return column_.job.segments.begin(segment); }
  std::int64_t end(std::int64_t segment) const { return column_.job.segments.end(segment); }

  // The place of what is kept of a token, the j-th of its segment.
  double* row(std::int64_t j, LogSlot slot) const {
    return reinterpret_cast<double*>(column_.rows) + (j * kSlots + slot) * static_cast<std::int64_t>(hn::Lanes(D64()));
  }
  std::int64_t element(std::int64_t t) const { return column_.element() + t * column_.job.channels + i_; }
  HWY_INLINE V64 load(const float* from, std::int64_t t) const {
    return hn::PromoteTo(D64(), load_lanes(hn::Rebind<float, D64>(), from + element(t), count_));
  }
  HWY_INLINE void store(V64 x, float* to, std::int64_t t) const {
    const hn::Rebind<float, D64> half;
    store_lanes(hn::DemoteTo(half, x), half, to + element(t), count_);
  }
  // x_t
  HWY_INLINE LogSum token(std::int64_t t) const {
    return {load(column_.job.v, t), hn::Set(D64(), 1.0), load(column_.job.k, t)};
  }
  // (1 − e^w)·sum
  HWY_INLINE LogSum of_rest(const LogSum& sum) const {
    return {hn::Mul(rest_sign_, sum.n), hn::Mul(rest_sign_, sum.d), hn::Add(sum.x, rest_exponent_)};
  }

  const Column& column_;
  std::int64_t i_;
  std::size_t count_;
  V64 w_, u_, minus_w_;
  V64 rest_exponent_, rest_sign_;  // 1 − e^w = rest_sign·e^rest_exponent
  LogCheckpoint sums_;
  LogSum all_, run_, rest_;  // of sweep 3
  V64 gw_, gu_;
};

template <bool kReleased>
void LogSweeps<kReleased>::behind(std::int64_t segment) {
  const std::int64_t origin = begin(segment);
  LogSum sum = sums_.behind;
  for (std::int64_t t = end(segment) - 1; t >= origin; --t) {
    store_sum(sum, row(t - origin, kLogBefore));
    sum = sum.scaled(minus_w_) + token(t);
  }
  sums_.behind = sum;
}

template <bool kReleased>
void LogSweeps<kReleased>::gradients(std::int64_t segment) {
  const std::int64_t origin = begin(segment), run_length = column_.job.tiling.run();
  LogSum before = sums_.before, run = sums_.run, rest = sums_.rest, gradients = sums_.gradients;
  for (std::int64_t t = origin; t < end(segment); ++t) {
    const LogSum x = token(t);
    const LogSum behind = load_sum(row(t - origin, kLogBefore));
    LogSum sum = x.scaled(u_) + (kReleased ? behind.scaled(minus_w_) : behind);
    if constexpr (kReleased) {
      store_sum(run, row(t - origin, kLogRun));
      if (t % run_length == 0) {
        before = before + run.scaled(minus_w_);
        run = rest = empty_sum();
      } else {
        rest = rest.scaled(w_) + x;
      }
      store_sum(rest, row(t - origin, kLogRest));
      sum = sum + run + of_rest(rest);
    }
    sum = sum + before;
    store_sum(before, row(t - origin, kLogBefore));

    const auto g = hn::Div(load(column_.job.gy, t), sum.d);
    const LogSum gradient = {g, hn::Neg(hn::Mul(g, hn::Div(sum.n, sum.d))), hn::Neg(sum.x)};
    store_sum(gradient, row(t - origin, kLogGradient));
    gu_ = hn::Add(gu_, product(x, gradient, u_));
    const LogSum from_before = kReleased ? gradients.scaled(minus_w_) : gradients;
    store_sum(from_before + gradient.scaled(u_), row(t - origin, kLogTransposed));
    if constexpr (kReleased) {
      gw_ = hn::Sub(gw_, product(behind, from_before + gradient, minus_w_));
      gw_ = hn::Sub(gw_, product(rest, gradient, w_));
      before = before.scaled(minus_w_);
      run = run.scaled(minus_w_) + x;
    } else {
      gw_ = hn::Sub(gw_, product(behind, from_before, minus_w_));
      before = before.scaled(minus_w_) + x;
    }
    gradients = gradients.scaled(minus_w_) + gradient;
  }
  sums_.before = before, sums_.run = run, sums_.rest = rest, sums_.gradients = gradients;
}

template <bool kReleased>
void LogSweeps<kReleased>::results(std::int64_t segment) {
  const std::int64_t origin = begin(segment), run_length = column_.job.tiling.run();
  LogSum all = all_, run = run_, rest = rest_;
  for (std::int64_t t = end(segment) - 1; t >= origin; --t) {
    const LogSum gradient = load_sum(row(t - origin, kLogGradient));
    LogSum transposed = load_sum(row(t - origin, kLogTransposed)) + (kReleased ? run : all);
    gw_ = hn::Sub(gw_, product(load_sum(row(t - origin, kLogBefore)), all, minus_w_));
    all = all.scaled(minus_w_) + gradient;
    if constexpr (kReleased) {
      const LogSum run_sum = load_sum(row(t - origin, kLogRun));
      gw_ = hn::Add(gw_, product(load_sum(row(t - origin, kLogRest)), of_rest(rest), w_));
      if (t % run_length == 0) {
        gw_ = hn::Sub(gw_, product(run_sum, all, minus_w_));
        run = all.scaled(minus_w_);
        rest = empty_sum();
      } else {
        gw_ = hn::Sub(gw_, product(run_sum, run, minus_w_));
        run = run.scaled(minus_w_) + gradient;
        rest = rest.scaled(w_) + gradient;
        transposed = transposed + of_rest(rest);
      }
    }
    const auto weight = exp_or_nan(hn::Add(transposed.x, load(column_.job.k, t)));
    const auto gv = hn::Mul(weight, transposed.n);
    store(hn::MulAdd(load(column_.job.v, t), gv, hn::Mul(weight, transposed.d)), column_.job.gk, t);
    store(gv, column_.job.gv, t);
  }
  all_ = all, run_ = run, rest_ = rest;
}

template <bool kReleased>
HWY_INLINE void log_column_of_form(const Column& column) {
  for (std::int64_t i = 0; i < column.job.width(column.block); i += static_cast<std::int64_t>(hn::Lanes(D64()))) {
    LogSweeps<kReleased>(column, i).run();
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weft::bi_wkv_grad
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
