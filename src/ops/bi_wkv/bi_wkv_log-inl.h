// The log-space path of the Bi-WKV scan for one instruction set, for keys of any range: sums numerator·e^exponent in
// f64. Included once per target, as Highway wants it.
#include <cmath>
#include <cstring>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernel/log_sum-inl.h"
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

using weft::HWY_NAMESPACE::kEmptyExponent;
using weft::HWY_NAMESPACE::load_f64;
using weft::HWY_NAMESPACE::LogSum;
using weft::HWY_NAMESPACE::store_f32;
using D64 = weft::HWY_NAMESPACE::DLog;
using V64 = hn::Vec<D64>;

// A sum of each channel of a block: rows of kBlock f64, numerator, denominator and exponent.
constexpr std::int64_t kSumSize = 3 * kBlock;

HWY_INLINE void clear_sum(double* sum) {
  for (std::int64_t i = 0; i < kBlock; ++i) sum[i] = sum[kBlock + i] = 0, sum[2 * kBlock + i] = kEmptyExponent;
}
HWY_INLINE LogSum load_sum(const double* sum) { return weft::HWY_NAMESPACE::load_sum(sum, kBlock); }
HWY_INLINE void store_sum(const LogSum& sum, double* to) { weft::HWY_NAMESPACE::store_sum(sum, to, kBlock); }

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
      rest_exponent[i] = x == 0 ? kEmptyExponent : x > 0 ? x + std::log1p(-std::exp(-x)) : std::log(-std::expm1(x));
    }
  }
};

HWY_INLINE LogSum token(const Rows<float>& rows, std::int64_t t, std::int64_t i) {
  return {load_f64(rows.v + t * rows.stride + i), hn::Set(D64(), 1.0), load_f64(rows.k + t * rows.stride + i)};
}

// Takes the tokens of a tile, last to first, into the backward sum of lanes i…; with kKeep writes the sum over the
// tokens behind each one into `kept` before that.
template <bool kKeep>
HWY_INLINE void log_backward(const Rows<float>& rows, const LogCoefficients& c, std::int64_t i, double* sum,
                             double* kept) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D64()));
  const auto minus_w = hn::Neg(load_f64(c.w + i));
  LogSum behind = load_sum(sum + i);
  for (std::int64_t t = rows.tokens - 1; t >= 0; --t) {
    if constexpr (kKeep) weft::HWY_NAMESPACE::store_sum(behind, kept + 3 * t * lanes, lanes);
    behind = behind.scaled(minus_w) + token(rows, t, i);
  }
  store_sum(behind, sum + i);
}

// The forward sums as in Carry, kSumSize f64 each: before (P), run (Q), rest (R, here including token t itself).
template <bool kReleased>
HWY_INLINE void log_forward(const Rows<float>& rows, const LogCoefficients& c, std::int64_t i, std::int64_t begin,
                            std::int64_t run_length, double* sums, const double* kept) {
  const D64 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto w = load_f64(c.w + i), minus_w = hn::Neg(w);
  const auto u = load_f64(c.u + i);
  LogSum before = load_sum(sums + i), run = load_sum(sums + kSumSize + i), rest = load_sum(sums + 2 * kSumSize + i);
  for (std::int64_t t = 0; t < rows.tokens; ++t) {
    const LogSum own = token(rows, t, i);
    if constexpr (kReleased) {
      rest = rest.scaled(w);
      if ((begin + t) % run_length == 0) {
        before = before + run.scaled(minus_w);
        run = rest = weft::HWY_NAMESPACE::empty_sum();
      } else {
        rest = rest + own;
      }
    }
    const LogSum behind = weft::HWY_NAMESPACE::load_sum(kept + 3 * t * lanes, lanes);
    LogSum sum = before + (kReleased ? behind.scaled(minus_w) : behind) + own.scaled(u);
    if constexpr (kReleased) {
      const auto sign = hn::Load(d, c.rest_sign + i);
      const auto exponent = hn::Load(d, c.rest_exponent + i);
      sum = sum + run + LogSum{hn::Mul(sign, rest.n), hn::Mul(sign, rest.d), hn::Add(rest.x, exponent)};
    }
    store_f32(hn::Div(sum.n, sum.d), rows.y + t * rows.stride + i);
    before = before.scaled(minus_w);
    if constexpr (kReleased) {
      run = run.scaled(minus_w) + own;
    } else {
      before = before + own;
    }
  }
  store_sum(before, sums + i);
  store_sum(run, sums + kSumSize + i);
  store_sum(rest, sums + 2 * kSumSize + i);
}

void log_column(const Unit& unit) {
  const Scan& scan = unit.scan;
  const Tiling& tiling = scan.tiling;
  const LogCoefficients c(unit);
  const auto record = [&](std::int64_t tile) { return reinterpret_cast<double*>(scan.record(unit.column(), tile)); };
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(D64()));
  double* kept = reinterpret_cast<double*>(unit.buffer);
  alignas(64) double sums[3 * kSumSize];
  clear_sum(sums);
  for (std::int64_t tile = tiling.count() - 1; tile >= 0; --tile) {
    std::memcpy(record(tile), sums, kSumSize * sizeof(double));
    if (tile == 0) break;
    const Rows<float> rows = open_rows<float>(unit, tiling.begin(tile), tiling.end(tile));
    for (std::int64_t i = 0; i < kBlock; i += lanes) log_backward<false>(rows, c, i, sums, nullptr);
  }
  for (int sum = 0; sum < 3; ++sum) clear_sum(sums + sum * kSumSize);
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
