// The log-space path of the Bi-WKV scan for one instruction set, for keys of any range: sums numerator·e^exponent in
// f64. Included once per target, as Highway wants it.
#include <cmath>
#include <cstring>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "ops/bi_wkv/bi_wkv_rows-inl.h"
#include "ops/bi_wkv/bi_wkv_scan.h"

// clang-format off
#if defined(WEFT_BI_WKV_LOG_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_BI_WKV_LOG_INL_H_
#undef WEFT_BI_WKV_LOG_INL_H_
#else
#define WEFT_BI_WKV_LOG_INL_H_
#endif
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace weft::bi_wkv_scan {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D64 = hn::CappedTag<double, kBlock / 2>;
using V64 = hn::Vec<D64>;

HWY_INLINE V64 load_f64(const float* from) {
  const D64 d;
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D64>(), from));
}
HWY_INLINE void store_f32(V64 value, float* to) {
  const hn::Rebind<float, D64> half;
  hn::StoreU(hn::DemoteTo(half, value), half, to);
}

constexpr double kEmpty = -1e300;  // the exponent of an empty sum

// exp, but NaN for NaN.
HWY_INLINE V64 exp_or_nan(V64 x) {
  const D64 d;
  return hn::IfThenElse(hn::Eq(x, x), hn::Exp(d, x), x);
}

// Three rows of kBlock f64: numerator, denominator, exponent.
struct LogSum {
  static constexpr std::int64_t kSize = 3 * kBlock;

  static void clear(double* sum) {
    for (std::int64_t i = 0; i < kBlock; ++i) sum[i] = sum[kBlock + i] = 0, sum[2 * kBlock + i] = kEmpty;
  }
};

// The sum of two sums, the left one: (n, m, x) + (n2, m2, x2).
HWY_INLINE void add_to(V64& n, V64& m, V64& x, V64 n2, V64 m2, V64 x2) {
  const D64 d;
  const auto difference = hn::Sub(x, x2);
  const auto one = hn::Set(d, 1.0);
  const auto e = exp_or_nan(hn::Neg(hn::Abs(difference)));
  const auto left_leads = hn::Gt(difference, hn::Zero(d));
  const auto left = hn::IfThenElse(left_leads, one, e);
  const auto right = hn::IfThenElse(left_leads, e, one);
  n = hn::MulAdd(n, left, hn::Mul(n2, right));
  m = hn::MulAdd(m, left, hn::Mul(m2, right));
  x = hn::IfThenElse(left_leads, x, x2);
}

HWY_INLINE void load_sum(const double* from, V64& n, V64& m, V64& x) {
  const D64 d;
  n = hn::Load(d, from);
  m = hn::Load(d, from + kBlock);
  x = hn::Load(d, from + 2 * kBlock);
}
HWY_INLINE void store_sum(V64 n, V64 m, V64 x, double* to) {
  const D64 d;
  hn::Store(n, d, to);
  hn::Store(m, d, to + kBlock);
  hn::Store(x, d, to + 2 * kBlock);
}

// What the log-space path needs to know of a block's channels.
struct LogCoefficients {
  alignas(64) float w[kBlock];
  alignas(64) float u[kBlock];
  alignas(64) double rest_exponent[kBlock];  // 1 − e^w = rest_sign·e^rest_exponent
  alignas(64) double rest_sign[kBlock];

  explicit LogCoefficients(const Unit& unit) {
    unit.load_channels(unit.scan.w, w);
    unit.load_channels(unit.scan.u, u);
    for (std::int64_t i = 0; i < kBlock; ++i) {
      const double x = w[i];
      rest_sign[i] = x > 0 ? -1 : 1;
      rest_exponent[i] = x == 0 ? kEmpty : x > 0 ? x + std::log1p(-std::exp(-x)) : std::log(-std::expm1(x));
    }
  }
};

// Takes the tokens of a tile, last to first, into the backward sum of lanes i…; with kKeep writes the sum over the
// tokens behind each one into `kept` before that.
template <bool kKeep>
HWY_INLINE void log_backward(const Rows<float>& rows, const LogCoefficients& c, std::int64_t i, double* sum,
                             double* kept) {
  const D64 d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto w = load_f64(c.w + i);
  const auto one = hn::Set(d, 1.0);
  V64 n, m, x;
  load_sum(sum + i, n, m, x);
  for (std::int64_t t = rows.tokens - 1; t >= 0; --t) {
    if constexpr (kKeep) {
      hn::Store(n, d, kept + 3 * t * lanes);
      hn::Store(m, d, kept + (3 * t + 1) * lanes);
      hn::Store(x, d, kept + (3 * t + 2) * lanes);
    }
    x = hn::Sub(x, w);
    add_to(n, m, x, load_f64(rows.v + t * rows.stride + i), one, load_f64(rows.k + t * rows.stride + i));
  }
  store_sum(n, m, x, sum + i);
}

// The forward sums as in Carry, kSize f64 each: before (P), run (Q), rest (R, here including token t itself).
template <bool kReleased>
HWY_INLINE void log_forward(const Rows<float>& rows, const LogCoefficients& c, std::int64_t i, std::int64_t begin,
                            std::int64_t run_length, double* sums, const double* kept) {
  const D64 d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto w = load_f64(c.w + i);
  const auto u = load_f64(c.u + i);
  const auto one = hn::Set(d, 1.0);
  const auto zero = hn::Zero(d);
  const auto empty = hn::Set(d, kEmpty);
  V64 n, m, x, run_n, run_m, run_x, rest_n, rest_m, rest_x;
  load_sum(sums + i, n, m, x);
  load_sum(sums + LogSum::kSize + i, run_n, run_m, run_x);
  load_sum(sums + 2 * LogSum::kSize + i, rest_n, rest_m, rest_x);
  for (std::int64_t t = 0; t < rows.tokens; ++t) {
    const auto k = load_f64(rows.k + t * rows.stride + i);
    const auto v = load_f64(rows.v + t * rows.stride + i);
    if constexpr (kReleased) {
      rest_x = hn::Add(rest_x, w);
      if ((begin + t) % run_length == 0) {
        add_to(n, m, x, run_n, run_m, hn::Sub(run_x, w));
        run_n = run_m = rest_n = rest_m = zero;
        run_x = rest_x = empty;
      } else {
        add_to(rest_n, rest_m, rest_x, v, one, k);
      }
    }
    V64 sum_n = n, sum_m = m, sum_x = x;
    const auto behind_x = hn::Load(d, kept + (3 * t + 2) * lanes);
    add_to(sum_n, sum_m, sum_x, hn::Load(d, kept + 3 * t * lanes), hn::Load(d, kept + (3 * t + 1) * lanes),
           kReleased ? hn::Sub(behind_x, w) : behind_x);
    add_to(sum_n, sum_m, sum_x, v, one, hn::Add(u, k));
    if constexpr (kReleased) {
      const auto sign = hn::Load(d, c.rest_sign + i);
      add_to(sum_n, sum_m, sum_x, run_n, run_m, run_x);
      add_to(sum_n, sum_m, sum_x, hn::Mul(sign, rest_n), hn::Mul(sign, rest_m),
             hn::Add(rest_x, hn::Load(d, c.rest_exponent + i)));
    }
    store_f32(hn::Div(sum_n, sum_m), rows.y + t * rows.stride + i);
    if constexpr (kReleased) {
      x = hn::Sub(x, w);
      run_x = hn::Sub(run_x, w);
      add_to(run_n, run_m, run_x, v, one, k);
    } else {
      x = hn::Sub(x, w);
      add_to(n, m, x, v, one, k);
    }
  }
  store_sum(n, m, x, sums + i);
  store_sum(run_n, run_m, run_x, sums + LogSum::kSize + i);
  store_sum(rest_n, rest_m, rest_x, sums + 2 * LogSum::kSize + i);
}

void log_column(const Unit& unit) {
  const Scan& scan = unit.scan;
  const Tiling& tiling = scan.tiling;
  const LogCoefficients c(unit);
  const auto record = [&](std::int64_t tile) { return reinterpret_cast<double*>(scan.record(unit.column(), tile)); };
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(D64()));
  double* kept = reinterpret_cast<double*>(unit.buffer);
  alignas(64) double sums[3 * LogSum::kSize];
  LogSum::clear(sums);
  for (std::int64_t tile = tiling.count() - 1; tile >= 0; --tile) {
    std::memcpy(record(tile), sums, LogSum::kSize * sizeof(double));
    if (tile == 0) break;
    const Rows<float> rows = open_rows<float>(unit, tiling.begin(tile), tiling.end(tile));
    for (std::int64_t i = 0; i < kBlock; i += lanes) log_backward<false>(rows, c, i, sums, nullptr);
  }
  for (int sum = 0; sum < 3; ++sum) LogSum::clear(sums + sum * LogSum::kSize);
  for (std::int64_t tile = 0; tile < tiling.count(); ++tile) {
    const std::int64_t begin = tiling.begin(tile);
    const Rows<float> rows = open_rows<float>(unit, begin, tiling.end(tile));
    for (std::int64_t i = 0; i < kBlock; i += lanes) {
      log_backward<true>(rows, c, i, record(tile), kept);
      if (scan.form == Wkv::kReleasedKernel) {
        log_forward<true>(rows, c, i, begin, tiling.run(), sums, kept);
      } else {
        log_forward<false>(rows, c, i, begin, tiling.run(), sums, kept);
      }
    }
    close_rows(unit, rows, begin);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weft::bi_wkv_scan
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
