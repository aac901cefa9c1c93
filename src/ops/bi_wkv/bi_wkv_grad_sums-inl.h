// What the sweeps of bi_wkv_grad-inl.h are made of, for one instruction set: pairs of sums, how they go from tile to
// tile, and the weights. Included once per target, as Highway wants it.
#include <algorithm>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernel/log_sum-inl.h"
#include "kernel/simd.h"
#include "ops/bi_wkv/bi_wkv_grad_plan.h"

// clang-format off
#if defined(WEFT_BI_WKV_GRAD_SUMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_BI_WKV_GRAD_SUMS_INL_H_
#undef WEFT_BI_WKV_GRAD_SUMS_INL_H_
#else
#define WEFT_BI_WKV_GRAD_SUMS_INL_H_
#endif
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace weft::bi_wkv_grad {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using weft::HWY_NAMESPACE::load_f64;
using weft::HWY_NAMESPACE::load_lanes;
using weft::HWY_NAMESPACE::store_f32;
using weft::HWY_NAMESPACE::store_lanes;
using D32 = hn::CappedTag<float, kBlock>;
using D64 = weft::HWY_NAMESPACE::DLog;
using DInt = hn::RebindToSigned<D32>;
using V32 = hn::Vec<D32>;
using V64 = hn::Vec<D64>;
using VInt = hn::Vec<DInt>;

// What belongs to the numerator and the denominator.
struct Pair {
  V32 n, d;
};
HWY_INLINE Pair zero_pair() { return {hn::Zero(D32()), hn::Zero(D32())}; }
HWY_INLINE Pair operator+(Pair a, Pair b) { return {hn::Add(a.n, b.n), hn::Add(a.d, b.d)}; }
HWY_INLINE Pair operator*(V32 a, Pair b) { return {hn::Mul(a, b.n), hn::Mul(a, b.d)}; }
// a·b + c
HWY_INLINE Pair mul_add(V32 a, Pair b, Pair c) { return {hn::MulAdd(a, b.n, c.n), hn::MulAdd(a, b.d, c.d)}; }
// a·b + sum, of both parts together
HWY_INLINE V32 add_product(Pair a, Pair b, V32 sum) { return hn::MulAdd(a.n, b.n, hn::MulAdd(a.d, b.d, sum)); }
HWY_INLINE Pair load_pair(const float* row) { return {hn::Load(D32(), row), hn::Load(D32(), row + kBlock)}; }
HWY_INLINE void store_pair(Pair x, float* row) {
  hn::Store(x.n, D32(), row);
  hn::Store(x.d, D32(), row + kBlock);
}

// Adds x to f64 sums.
HWY_INLINE void add_to(V32 x, double* sums) {
  alignas(64) float row[kBlock];
  hn::Store(x, D32(), row);
  const D64 d;
  for (std::size_t i = 0; i < hn::Lanes(D32()); i += hn::Lanes(d)) {
    hn::Store(hn::Add(hn::Load(d, sums + i), load_f64(row + i)), d, sums + i);
  }
}

// A sum as it goes from tile to tile.
struct Carry {
  alignas(64) double n[kBlock];
  alignas(64) double d[kBlock];

  HWY_INLINE Pair load(std::size_t i) const {
    alignas(64) float row[2 * kBlock];
    for (std::size_t lane = 0; lane < hn::Lanes(D32()); lane += hn::Lanes(D64())) {
      store_f32(hn::Load(D64(), n + i + lane), row + lane);
      store_f32(hn::Load(D64(), d + i + lane), row + kBlock + lane);
    }
    return load_pair(row);
  }
  // Lanes i… become factor·this + x.
  HWY_INLINE void age(const double* factor, Pair x, std::size_t i) {
    for (std::size_t lane = 0; lane < hn::Lanes(D32()); lane += hn::Lanes(D64())) {
      for (double* sums : {n + i + lane, d + i + lane}) {
        hn::Store(hn::Mul(hn::Load(D64(), factor + i + lane), hn::Load(D64(), sums)), D64(), sums);
      }
    }
    add_to(x.n, n + i);
    add_to(x.d, d + i);
  }
  // Lanes i… become this + factor·other.
  HWY_INLINE void add_product(const double* factor, const Carry& other, std::size_t i) {
    for (std::size_t lane = i; lane < i + hn::Lanes(D32()); ++lane) {
      n[lane] += factor[lane] * other.n[lane];
      d[lane] += factor[lane] * other.d[lane];
    }
  }
  HWY_INLINE void clear(std::size_t i) {
    for (std::size_t lane = i; lane < i + hn::Lanes(D32()); ++lane) n[lane] = d[lane] = 0;
  }
};

// All sums are taken of e^{k_i − k_0}, so that adding a constant to k changes nothing. With k_i − k_0 in
// [kLowest, kHighest − the growth of the weights over all tokens − u] D over 10⁶ tokens is between e^−40 and e^{30+14}.
// Quotients of gy by it and sums of these leave a factor of 10^18 either way, and the products of sums that make up gw
// are shares of D, divided by D, so they are no larger than v·gy.
constexpr float kLowest = -40;
constexpr float kHighest = 30;
constexpr float kLowestBonus = -25;
// The released kernel subtracts e^{(t−i)·w}·(e^w − 1): harmless to f32 while that stays small.
constexpr float kHighestRunDecay = 1;

HWY_INLINE void prepare(const Job& job, std::int64_t block, Coefficients& c) {
  alignas(64) float w[kBlock], u[kBlock];
  job.load_channels(job.w, block, w);
  job.load_channels(job.u, block, u);
  const D64 d;
  for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
    const auto rate = load_f64(w + i);
    const auto decay = hn::Exp(d, hn::Neg(rate)), growth = hn::Exp(d, rate), bonus = hn::Exp(d, load_f64(u + i));
    hn::Store(rate, d, c.w + i);
    hn::Store(decay, d, c.exact_decay + i);
    hn::Store(growth, d, c.exact_growth + i);
    hn::Store(bonus, d, c.exact_bonus + i);
    store_f32(decay, c.decay + i);
    store_f32(bonus, c.bonus + i);
    store_f32(growth, c.growth + i);
    store_f32(hn::Sub(hn::Set(d, 1.0), growth), c.rest + i);
  }
  const bool released = job.form == Wkv::kReleasedKernel;
  const auto tokens = static_cast<float>(job.tiling.tokens());
  const auto run = static_cast<float>(job.tiling.run());
  for (std::size_t i = 0; i < kBlock; ++i) {
    const bool possible = u[i] >= kLowestBonus && w[i] == w[i] && (!released || w[i] * run <= kHighestRunDecay);
    const float highest = kHighest - std::max(0.0F, -w[i] * tokens) - std::max(0.0F, u[i]);
    c.middle[i] = (highest + kLowest) / 2;
    c.reach[i] = possible ? (highest - kLowest) / 2 : -1;
  }
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

// e^{−w·tokens} and its inverse.
struct Factors {
  std::int64_t length = -1;
  alignas(64) double decay[kBlock];
  alignas(64) double growth[kBlock];

  HWY_INLINE void set(const Coefficients& c, std::int64_t tokens) {
    if (tokens == length) return;  // most tiles are as long as the one before
    length = tokens;
    const D64 d;
    for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
      const auto exponent = hn::Mul(hn::Load(d, c.w + i), hn::Set(d, static_cast<double>(tokens)));
      hn::Store(hn::Exp(d, hn::Neg(exponent)), d, decay + i);
      hn::Store(hn::Exp(d, exponent), d, growth + i);
    }
  }
};

// What goes from tile to tile, and is noted at the borders of segments: of sweep 1, and of sweep 2.
struct Checkpoint {
  Carry behind;
  Carry before, run, rest, gradients;  // P, Q, X and PG
};
static_assert(sizeof(Checkpoint) == kCheckpointBytes);

// Of the gradients of λ, of e^w in X's recurrence over 1 − e^w, of 1 − e^w, and of e^u, what was added up so far.
struct Totals {
  alignas(64) double decay[kBlock];
  alignas(64) double growth[kBlock];
  alignas(64) double rest[kBlock];
  alignas(64) double bonus[kBlock];
};

struct State {
  Totals totals;
  Checkpoint sums;
  Carry all, run, rest;  // of sweep 3: I, J and Y
  alignas(64) bool fits;
};
static_assert(sizeof(State) == kStateBytes);

// A carry may be the sum over many tiles: multiplied by e^{−w} ≈ 1 token after token, it would round the same way each
// time. So the sums within the tile start from zero and the carries come in through a power of e^{−w}.
template <bool kCarries>
HWY_INLINE Pair with_carry(Pair sum, V32 power, Pair carry) {
  if constexpr (kCarries) return mul_add(power, carry, sum);
  return sum;
}
template <bool kCarries>
HWY_INLINE Pair carry_in(const Carry& carry, std::size_t i) {
  if constexpr (kCarries) return carry.load(i);
  return zero_pair();
}

}  // namespace HWY_NAMESPACE
}  // namespace weft::bi_wkv_grad
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
