// The sweeps of the Bi-WKV scan in f32 for one instruction set; bi_wkv_scan.h says how they fit together.
// Included once per target, as Highway wants it.
#include <algorithm>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernel/simd.h"
#include "ops/bi_wkv/bi_wkv_log-inl.h"
#include "ops/bi_wkv/bi_wkv_rows-inl.h"
#include "ops/bi_wkv/bi_wkv_scan.h"

// clang-format off
#if defined(WEFT_BI_WKV_SCAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_BI_WKV_SCAN_INL_H_
#undef WEFT_BI_WKV_SCAN_INL_H_
#else
#define WEFT_BI_WKV_SCAN_INL_H_
#endif
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace weft::bi_wkv_scan {
namespace HWY_NAMESPACE {
using DInt = hn::RebindToSigned<D32>;
using V32 = hn::Vec<D32>;
using VInt = hn::Vec<DInt>;

// All sums are taken of e^{k_i − k_0}, so that adding a constant to k changes nothing. With k_i − k_0 in
// [kLowest, kHighest − the growth of the weights over all tokens − u] every sum over 10⁶ tokens stays below e^{50+14},
// which leaves a factor of 10^10 for v, and every denominator, to which a neighbour adds its weight undecayed, stays
// above e^−60.
constexpr float kLowest = -60;
constexpr float kHighest = 50;
constexpr float kLowestBonus = -25;
// The released kernel subtracts e^{(t−i)·w}·(e^w − 1): harmless to f32 while that stays small.
constexpr float kHighestRunDecay = 1;

HWY_INLINE Coefficients coefficients(const Unit& unit) {
  const D64 d;
  Coefficients c;
  alignas(64) float u[kBlock], w[kBlock];
  unit.load_channels(unit.scan.w, w);
  unit.load_channels(unit.scan.u, u);
  const bool released = unit.scan.form == Wkv::kReleasedKernel;
  const auto one = hn::Set(d, 1.0);
  for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
    const auto decay_rate = load_f64(w + i);
    store_f32(hn::Exp(d, hn::Neg(decay_rate)), c.decay + i);
    store_f32(hn::Exp(d, load_f64(u + i)), c.bonus + i);
    if (!released) continue;
    const auto exp_w = hn::Exp(d, decay_rate);
    store_f32(exp_w, c.growth + i);
    store_f32(hn::Sub(one, exp_w), c.rest + i);
  }
  const auto tokens = static_cast<float>(unit.scan.tiling.tokens());
  const auto run = static_cast<float>(unit.scan.tiling.run());
  for (std::int64_t i = 0; i < kBlock; ++i) {
    const bool possible = u[i] >= kLowestBonus && w[i] == w[i] && (!released || w[i] * run <= kHighestRunDecay);
    const float highest = kHighest - std::max(0.0F, -w[i] * tokens) - std::max(0.0F, u[i]);
    c.middle[i] = (highest + kLowest) / 2;
    c.reach[i] = possible ? (highest - kLowest) / 2 : -1;
  }
  return c;
}

// e^x, remembering in `farthest` how far any x so far was from the middle of what is safe. Read as integers, numbers of
// one sign keep their order, and NaN comes after infinity.
HWY_INLINE V32 weigh(V32 x, V32 middle, VInt& farthest) {
  farthest = hn::Max(farthest, hn::BitCast(DInt(), hn::Abs(hn::Sub(x, middle))));
  return weft::HWY_NAMESPACE::exp_in_range(D32(), x);
}

HWY_INLINE bool all_fit(VInt farthest, const float* reach) {
  return hn::AllFalse(DInt(), hn::Gt(farthest, hn::BitCast(DInt(), hn::Load(D32(), reach))));
}

// Sweep 1. kWithRest: the sums kRest are wanted too. kKeep: leaves e^k and e^k·v in `kept`, a row of kBlock each for
// every token.
template <bool kWithRest, bool kKeep, class T>
HWY_INLINE bool aggregate(const Rows<T>& rows, const Coefficients& c, const float* first_key, bool starts_run,
                          float* record, [[maybe_unused]] float* kept) {
  const D32 d;
  bool fits = true;
  for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
    const auto first = hn::LoadU(d, first_key + i);
    const auto middle = hn::Load(d, c.middle + i);
    const auto decay = hn::Load(d, c.decay + i);
    auto farthest = hn::Zero(DInt());
    auto before_n = hn::Zero(d), before_d = hn::Zero(d);
    auto behind_n = hn::Zero(d), behind_d = hn::Zero(d);
    [[maybe_unused]] auto rest_n = hn::Zero(d), rest_d = hn::Zero(d);
    auto power = hn::Set(d, 1.0F);
    for (std::int64_t t = 0; t < rows.tokens; ++t) {
      hwy::Prefetch(rows.after(rows.k, t));
      hwy::Prefetch(rows.after(rows.v, t));
      const auto e = weigh(hn::Sub(load_row(rows.k + t * rows.stride + i), first), middle, farthest);
      const auto ev = hn::Mul(e, load_row(rows.v + t * rows.stride + i));
      if constexpr (kKeep) {
        hn::Store(e, d, kept + 2 * t * kBlock + i);
        hn::Store(ev, d, kept + (2 * t + 1) * kBlock + i);
      }
      before_n = hn::MulAdd(before_n, decay, ev);
      before_d = hn::MulAdd(before_d, decay, e);
      behind_n = hn::MulAdd(power, ev, behind_n);
      behind_d = hn::MulAdd(power, e, behind_d);
      power = hn::Mul(power, decay);
      if constexpr (kWithRest) {
        if (t == 0 && starts_run) continue;
        const auto growth = hn::Load(d, c.growth + i);
        rest_n = hn::MulAdd(rest_n, growth, ev);
        rest_d = hn::MulAdd(rest_d, growth, e);
      }
    }
    hn::Store(before_n, d, record + kBefore * kBlock + i);
    hn::Store(before_d, d, record + (kBefore + 1) * kBlock + i);
    hn::Store(behind_n, d, record + kBehind * kBlock + i);
    hn::Store(behind_d, d, record + (kBehind + 1) * kBlock + i);
    if constexpr (kWithRest) {
      hn::Store(rest_n, d, record + kRest * kBlock + i);
      hn::Store(rest_d, d, record + (kRest + 1) * kBlock + i);
    }
    fits = fits && all_fit(farthest, c.reach + i);
  }
  return fits;
}

// The carries into a tile from the tokens before it, for the numerator or the denominator; with s the first token of
// the run that holds the tile's first token t: P = Σ_{i<s} e^{−(t−i)·w}…, Q = Σ_{s≤i<t} e^{−(t−i−1)·w}…, R = Σ_{s<i<t}
// e^{(t−1−i)·w}…; where a run begins, Q joins P with one more factor e^{−w} and Q and R start anew. The paper's formula
// is the case without runs: all is P, without the factor.
struct Carry {
  V64 before, run, rest;

  // Turns a tile's aggregates into the carries and goes on to the next tile.
  template <bool kReleased>
  HWY_INLINE void pass(float* record, V64 decay, V64 factor, [[maybe_unused]] V64 rest_factor, bool starts_run,
                       bool splits_runs) {
    const auto aggregate_before = load_f64(record + kBefore * kBlock);
    if constexpr (kReleased) {
      if (starts_run) {
        before = hn::MulAdd(run, decay, before);
        run = rest = hn::Zero(D64());
      }
      store_f32(run, record + kRun * kBlock);
      run = hn::MulAdd(run, factor, aggregate_before);
      const auto aggregate_rest = splits_runs ? load_f64(record + kRest * kBlock) : hn::Zero(D64());
      store_f32(rest, record + kRest * kBlock);
      if (splits_runs) rest = hn::MulAdd(rest, rest_factor, aggregate_rest);
      store_f32(before, record + kBefore * kBlock);
      before = hn::Mul(before, factor);
    } else {
      store_f32(before, record + kBefore * kBlock);
      before = hn::MulAdd(before, factor, aggregate_before);
    }
  }
};

// Sweep 2 of a column.
template <bool kReleased>
HWY_INLINE void combine_tiles(const Scan& scan, std::int64_t column, const float* w_of_block) {
  const D64 d;
  const Tiling& tiling = scan.tiling;
  const std::int64_t tiles = tiling.count();
  for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
    const auto w = load_f64(w_of_block + i);
    // e^{−w·tokens} of the tile; most tiles are as long as the one before.
    std::int64_t factor_length = -1;
    auto factor = hn::Zero(d), rest_factor = hn::Zero(d);
    const auto set_factors = [&](std::int64_t tile) HWY_ATTR {
      const std::int64_t length = tiling.end(tile) - tiling.begin(tile);
      if (length == factor_length) return;
      factor_length = length;
      const auto exponent = hn::Mul(w, hn::Set(d, static_cast<double>(length)));
      factor = hn::Exp(d, hn::Neg(exponent));
      if constexpr (kReleased) rest_factor = hn::Exp(d, exponent);
    };
    const auto decay = hn::Exp(d, hn::Neg(w));
    const auto zero = hn::Zero(d);
    Carry numerator = {zero, zero, zero}, denominator = numerator;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      float* record = scan.record(column, tile) + i;
      set_factors(tile);
      const bool starts_run = kReleased && tiling.starts_run(tile);
      numerator.pass<kReleased>(record, decay, factor, rest_factor, starts_run, tiling.splits_runs());
      denominator.pass<kReleased>(record + kBlock, decay, factor, rest_factor, starts_run, tiling.splits_runs());
    }
    auto behind_n = hn::Zero(d), behind_d = hn::Zero(d);
    for (std::int64_t tile = tiles - 1; tile >= 0; --tile) {
      float* record = scan.record(column, tile) + kBehind * kBlock + i;
      const auto aggregate_n = load_f64(record), aggregate_d = load_f64(record + kBlock);
      store_f32(behind_n, record);
      store_f32(behind_d, record + kBlock);
      set_factors(tile);
      behind_n = hn::MulAdd(behind_n, factor, aggregate_n);
      behind_d = hn::MulAdd(behind_d, factor, aggregate_d);
    }
  }
}

// Sweep 3, first half: writes to `late` for each token, a row of kBlock each, the numerator and the denominator over it
// and all later tokens, as y wants them. `record` holds the carries; without kCarries there are none. With kKept e^k
// and e^k·v are in `kept`, else they are put there and the result is whether all keys fit.
//
// A carry may be the sum over a million tokens: multiplied by e^{−w} ≈ 1 token after token, it would round the same way
// each time. So the sums within the tile start from zero and the carries come in through a power of e^{−w}, whose error
// the numerator and the denominator share.
template <bool kReleased, bool kCarries, bool kKept, class T>
HWY_INLINE bool sum_behind(const Rows<T>& rows, const Coefficients& c, const float* first_key, const float* record,
                           float* kept, float* late) {
  const D32 d;
  bool fits = true;
  for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
    const auto first = hn::LoadU(d, first_key + i);
    const auto middle = hn::Load(d, c.middle + i);
    const auto decay = hn::Load(d, c.decay + i);
    const auto bonus = hn::Load(d, c.bonus + i);
    const auto carry_n = kCarries ? hn::Load(d, record + kBehind * kBlock + i) : hn::Zero(d);
    const auto carry_d = kCarries ? hn::Load(d, record + (kBehind + 1) * kBlock + i) : hn::Zero(d);
    auto farthest = hn::Zero(DInt());
    auto behind_n = hn::Zero(d), behind_d = hn::Zero(d);
    auto power = kReleased ? decay : hn::Set(d, 1.0F);
    for (std::int64_t t = rows.tokens - 1; t >= 0; --t) {
      float* weights = kept + 2 * t * kBlock + i;
      V32 e, ev;
      if constexpr (kKept) {
        e = hn::Load(d, weights);
        ev = hn::Load(d, weights + kBlock);
      } else {
        hwy::Prefetch(rows.after(rows.k, rows.tokens - 1 - t));
        hwy::Prefetch(rows.after(rows.v, rows.tokens - 1 - t));
        e = weigh(hn::Sub(load_row(rows.k + t * rows.stride + i), first), middle, farthest);
        ev = hn::Mul(e, load_row(rows.v + t * rows.stride + i));
        hn::Store(e, d, weights);
        hn::Store(ev, d, weights + kBlock);
      }
      auto late_n = hn::MulAdd(bonus, ev, kReleased ? hn::Mul(behind_n, decay) : behind_n);
      auto late_d = hn::MulAdd(bonus, e, kReleased ? hn::Mul(behind_d, decay) : behind_d);
      if constexpr (kCarries) {
        late_n = hn::MulAdd(power, carry_n, late_n);
        late_d = hn::MulAdd(power, carry_d, late_d);
        power = hn::Mul(power, decay);
      }
      hn::Store(late_n, d, late + 2 * t * kBlock + i);
      hn::Store(late_d, d, late + (2 * t + 1) * kBlock + i);
      behind_n = hn::MulAdd(behind_n, decay, ev);
      behind_d = hn::MulAdd(behind_d, decay, e);
    }
    fits = fits && all_fit(farthest, c.reach + i);
  }
  return kKept || fits;
}

// Sweep 3, second half: y. As in Carry, but a tile that lies within a run needs no difference between P and Q.
// `begin` is the first token of the rows.
template <bool kReleased, bool kCarries, class T>
HWY_INLINE void emit(const Rows<T>& rows, const Coefficients& c, const float* record, std::int64_t begin,
                     std::int64_t run_length, bool past_cache, const float* kept, const float* late) {
  const D32 d;
  past_cache = past_cache && hn::Lanes(d) == kBlock;  // half a line at a time would be slow
  for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
    const auto carry = [&](std::int64_t row)
                           HWY_ATTR { return kCarries ? hn::Load(d, record + row * kBlock + i) : hn::Zero(d); };
    const auto decay = hn::Load(d, c.decay + i);
    auto carry_n = carry(kBefore), carry_d = carry(kBefore + 1);
    auto before_n = hn::Zero(d), before_d = hn::Zero(d);
    auto power = hn::Set(d, 1.0F);
    [[maybe_unused]] auto run_n = hn::Zero(d), run_d = hn::Zero(d);
    [[maybe_unused]] auto rest_n = hn::Zero(d), rest_d = hn::Zero(d);
    [[maybe_unused]] std::int64_t to_next_run = 0;
    if constexpr (kReleased) {
      carry_n = hn::Add(carry_n, carry(kRun));
      carry_d = hn::Add(carry_d, carry(kRun + 1));
      rest_n = carry(kRest), rest_d = carry(kRest + 1);
      to_next_run = (run_length - begin % run_length) % run_length;
    }
    for (std::int64_t t = 0; t < rows.tokens; ++t) {
      const auto e = hn::Load(d, kept + 2 * t * kBlock + i);
      const auto ev = hn::Load(d, kept + (2 * t + 1) * kBlock + i);
      auto numerator = hn::Load(d, late + 2 * t * kBlock + i);
      auto denominator = hn::Load(d, late + (2 * t + 1) * kBlock + i);
      if constexpr (kReleased) {
        if (to_next_run-- == 0) {
          to_next_run = run_length - 1;
          before_n = hn::MulAdd(run_n, decay, before_n);
          before_d = hn::MulAdd(run_d, decay, before_d);
          run_n = run_d = rest_n = rest_d = hn::Zero(d);
        } else {
          const auto growth = hn::Load(d, c.growth + i);
          rest_n = hn::MulAdd(rest_n, growth, ev);
          rest_d = hn::MulAdd(rest_d, growth, e);
        }
        const auto rest = hn::Load(d, c.rest + i);
        numerator = hn::MulAdd(rest, rest_n, hn::Add(run_n, numerator));
        denominator = hn::MulAdd(rest, rest_d, hn::Add(run_d, denominator));
      }
      numerator = hn::Add(before_n, numerator);
      denominator = hn::Add(before_d, denominator);
      if constexpr (kCarries) {
        numerator = hn::MulAdd(power, carry_n, numerator);
        denominator = hn::MulAdd(power, carry_d, denominator);
        power = hn::Mul(power, decay);
      }
      const auto y = hn::Div(numerator, denominator);
      if (past_cache) {
        if constexpr (std::is_same_v<T, float>) hn::Stream(y, d, rows.y + t * rows.stride + i);
      } else {
        hwy::Prefetch(rows.after(rows.y, t));
        store_row(y, rows.y + t * rows.stride + i);
      }
      if constexpr (kReleased) {
        before_n = hn::Mul(before_n, decay);
        before_d = hn::Mul(before_d, decay);
        run_n = hn::MulAdd(run_n, decay, ev);
        run_d = hn::MulAdd(run_d, decay, e);
      } else {
        before_n = hn::MulAdd(before_n, decay, ev);
        before_d = hn::MulAdd(before_d, decay, e);
      }
    }
  }
}

template <bool kKeep, class T>
HWY_INLINE bool aggregate_rows(const Unit& unit, const Coefficients& c, std::int64_t tile, float* kept) {
  const Tiling& tiling = unit.scan.tiling;
  const Rows<T> rows = open_rows<T>(unit, tiling.begin(tile), tiling.end(tile));
  float* record = unit.scan.record(unit.column(), tile);
  if (unit.scan.form == Wkv::kReleasedKernel && tiling.splits_runs()) {
    return aggregate<true, kKeep>(rows, c, unit.first_key(), tiling.starts_run(tile), record, kept);
  }
  return aggregate<false, kKeep>(rows, c, unit.first_key(), true, record, kept);
}

template <bool kKeep>
HWY_INLINE bool aggregate_rows(const Unit& unit, const Coefficients& c, std::int64_t tile, float* kept) {
  return unit.is_bf16() ? aggregate_rows<kKeep, std::uint16_t>(unit, c, tile, kept)
                        : aggregate_rows<kKeep, float>(unit, c, tile, kept);
}

void combine(const Unit& unit) {
  alignas(64) float w[kBlock];
  unit.load_channels(unit.scan.w, w);
  if (unit.scan.form == Wkv::kReleasedKernel) {
    combine_tiles<true>(unit.scan, unit.column(), w);
  } else {
    combine_tiles<false>(unit.scan, unit.column(), w);
  }
}

// Sweep 3 of a tile; writes nothing and returns false when its keys do not fit, which kKept rules out.
template <bool kReleased, bool kCarries, bool kKept, class T>
HWY_INLINE bool emit_rows(const Unit& unit, const Coefficients& c, std::int64_t tile, float* kept) {
  const Tiling& tiling = unit.scan.tiling;
  const std::int64_t begin = tiling.begin(tile);
  const Rows<T> rows = open_rows<T, !kKept>(unit, begin, tiling.end(tile));
  const float* record = unit.scan.record(unit.column(), tile);
  float* late = unit.late();
  if (!sum_behind<kReleased, kCarries, kKept>(rows, c, unit.first_key(), record, kept, late)) return false;
  const bool past_cache = unit.scan.past_cache && unit.is_f32();
  emit<kReleased, kCarries>(rows, c, record, begin, tiling.run(), past_cache, kept, late);
  close_rows(unit, rows, begin);
  return true;
}

template <bool kCarries, bool kKept, class T>
HWY_INLINE bool emit_rows(const Unit& unit, const Coefficients& c, std::int64_t tile, float* kept) {
  return unit.scan.form == Wkv::kReleasedKernel ? emit_rows<true, kCarries, kKept, T>(unit, c, tile, kept)
                                                : emit_rows<false, kCarries, kKept, T>(unit, c, tile, kept);
}

template <bool kCarries, bool kKept>
HWY_INLINE bool emit_rows(const Unit& unit, const Coefficients& c, std::int64_t tile, float* kept) {
  return unit.is_bf16() ? emit_rows<kCarries, kKept, std::uint16_t>(unit, c, tile, kept)
                        : emit_rows<kCarries, kKept, float>(unit, c, tile, kept);
}

// What the sweeps of a column by tile share.
void prepare_column(const Unit& unit) {
  save_first_key(unit);
  *unit.coefficients() = coefficients(unit);
}

void aggregate_tile(const Unit& unit, std::int64_t tile) {
  const std::int64_t tiles = unit.scan.tiling.count();
  unit.scan.tile_fits[unit.column() * tiles + tile] = aggregate_rows<false>(unit, *unit.coefficients(), tile, nullptr);
}

void combine_column(const Unit& unit) {
  const std::int64_t tiles = unit.scan.tiling.count();
  const std::uint8_t* tile_fits = unit.scan.tile_fits + unit.column() * tiles;
  const bool fits = std::all_of(tile_fits, tile_fits + tiles, [](std::uint8_t fit) { return fit != 0; });
  unit.scan.fits[unit.column()] = fits;
  if (fits) combine(unit);
}

void emit_tile(const Unit& unit, std::int64_t tile) {
  emit_rows<true, false>(unit, *unit.coefficients(), tile, unit.kept());
}

// All three sweeps of a column, one after the other: between them e^k and e^k·v stay in the second-level cache.
void scan_column(const Unit& unit) {
  const Coefficients c = coefficients(unit);
  const Tiling& tiling = unit.scan.tiling;
  save_first_key(unit);
  if (tiling.count() == 1) {
    if (!emit_rows<false, false>(unit, c, 0, unit.kept())) log_column(unit);
    return;
  }
  const auto kept = [&](std::int64_t tile) { return unit.kept() + 2 * kBlock * tiling.begin(tile); };
  for (std::int64_t tile = 0; tile < tiling.count(); ++tile) {
    if (!aggregate_rows<true>(unit, c, tile, kept(tile))) return log_column(unit);
  }
  combine(unit);
  for (std::int64_t tile = 0; tile < tiling.count(); ++tile) emit_rows<true, true>(unit, c, tile, kept(tile));
}

}  // namespace HWY_NAMESPACE
}  // namespace weft::bi_wkv_scan
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
