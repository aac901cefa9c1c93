// The sweeps of the gradient of Bi-WKV in f32 for one instruction set; bi_wkv_grad_plan.h says how they fit together.
// Included once per target, as Highway wants it.
//
// The sums of the forward pass, each a pair (over e^k·v and over e^k), with x_t = (e^{k_t}·v_t, e^{k_t}), λ = e^{−w}:
//
//   S_{t−1} = λ·S_t + x_t          over the tokens behind
//   P_{t+1} = λ·P_t + x_t          over the tokens before            (N_t, D_t) = P_t + S_t + e^u·x_t
//
// For the released kernel P_{t+1} = λ·P_t is over earlier runs and others are over this run: Q_{t+1} = λ·Q_t + x_t and
// X_t = e^w·X_{t−1} + x_t. Where a run begins, P takes in λ·Q, Q and X become zero, and X leaves x_t out.
//
//   (N_t, D_t) = P_t + Q_t + λ·S_t + e^u·x_t + (1 − e^w)·X_t
//
// Each of these sums is linear in what it is made of, so gradients go through them the other way round. With
// G_t = (g_t, h_t), the gradient of (N_t, D_t), the gradients of S_{t−1}, P_{t+1} (Q'_{t+1}, P'_{t+1}: before a run
// that may begin there takes them in) and X_t/(1 − e^w) are, in this order,
//
//   the paper's        PG_{t+1} = λ·PG_t + G_t                   I_{t−1} = λ·I_t + G_t
//   released kernel's  λ·PG_t, PG as above                       I, J_{t−1} = λ·J_t + G_t, Y_t = e^w·Y_{t+1} + G_t
//
// where J_{s−1} = λ·I_{s−1} and Y_s is of no avail where a run begins at s: I_{t−1}, J_{t−1} are what t hands on to
// t − 1. The products of a sum and the gradient of its successor are what λ and e^w get.
#include <algorithm>

#include "hwy/cache_control.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernel/simd.h"
#include "ops/bi_wkv/bi_wkv_grad_plan.h"

// clang-format off
#if defined(WEFT_BI_WKV_GRAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_BI_WKV_GRAD_INL_H_
#undef WEFT_BI_WKV_GRAD_INL_H_
#else
#define WEFT_BI_WKV_GRAD_INL_H_
#endif
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace weft::bi_wkv_grad {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D32 = hn::CappedTag<float, kBlock>;
using D64 = hn::CappedTag<double, kBlock / 2>;
using DInt = hn::RebindToSigned<D32>;
using V32 = hn::Vec<D32>;
using V64 = hn::Vec<D64>;
using VInt = hn::Vec<DInt>;

/// The first `count` elements at `from`, zero beyond; a vector at most.
template <class D>
HWY_INLINE hn::Vec<D> load_lanes(D d, const float* from, std::size_t count) {
  return count >= hn::Lanes(d) ? hn::LoadU(d, from) : weft::HWY_NAMESPACE::load_n(d, from, count);
}
template <class D>
HWY_INLINE void store_lanes(hn::Vec<D> x, D d, float* to, std::size_t count) {
  if (count >= hn::Lanes(d)) {
    hn::StoreU(x, d, to);
  } else {
    weft::HWY_NAMESPACE::store_n(x, d, to, count);
  }
}

HWY_INLINE void store_f32(V64 value, float* to) {
  const hn::Rebind<float, D64> half;
  hn::StoreU(hn::DemoteTo(half, value), half, to);
}

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

// A sum as it goes from tile to tile.
struct Carry {
  alignas(64) double n[kBlock] = {};
  alignas(64) double d[kBlock] = {};

  HWY_INLINE Pair load(std::size_t i) const {
    alignas(64) float row[2 * kBlock];
    for (std::size_t lane = 0; lane < kBlock; ++lane) {
      row[lane] = static_cast<float>(n[lane]);
      row[kBlock + lane] = static_cast<float>(d[lane]);
    }
    return load_pair(row + i);
  }
  // this·factor + other
  HWY_INLINE void age(const double* factor, const Carry& other) {
    for (std::size_t lane = 0; lane < kBlock; ++lane) {
      n[lane] = n[lane] * factor[lane] + other.n[lane];
      d[lane] = d[lane] * factor[lane] + other.d[lane];
    }
  }
  HWY_INLINE void add_product(const double* factor, const Carry& other) {
    for (std::size_t lane = 0; lane < kBlock; ++lane) {
      n[lane] += factor[lane] * other.n[lane];
      d[lane] += factor[lane] * other.d[lane];
    }
  }
  HWY_INLINE void clear() { *this = Carry(); }
};

HWY_INLINE void put(Pair x, std::size_t i, Carry& to) {
  alignas(64) float row[2 * kBlock];
  store_pair(x, row);
  for (std::size_t lane = 0; lane < hn::Lanes(D32()); ++lane) {
    to.n[i + lane] = static_cast<double>(row[lane]);
    to.d[i + lane] = static_cast<double>(row[kBlock + lane]);
  }
}

HWY_INLINE void add_to(V32 x, std::size_t i, double* to) {
  alignas(64) float row[kBlock];
  hn::Store(x, D32(), row);
  for (std::size_t lane = 0; lane < hn::Lanes(D32()); ++lane) to[i + lane] += static_cast<double>(row[lane]);
}

// All sums are taken of e^{k_i − k_0}, so that adding a constant to k changes nothing. With k_i − k_0 in
// [kLowest, kHighest − the growth of the weights over all tokens − u] D over 10⁶ tokens is between e^−40 and e^{30+14}.
// Quotients of gy by it and sums of these leave a factor of 10^18 either way, and the products of sums that make up gw
// are shares of D, divided by D, so they are no larger than v·gy.
constexpr float kLowest = -40;
constexpr float kHighest = 30;
constexpr float kLowestBonus = -25;
// The released kernel subtracts e^{(t−i)·w}·(e^w − 1): harmless to f32 while that stays small.
constexpr float kHighestRunDecay = 1;

struct Coefficients {
  alignas(64) float decay[kBlock];   // e^{−w}
  alignas(64) float bonus[kBlock];   // e^u
  alignas(64) float growth[kBlock];  // e^w; as `rest`, of the released kernel only
  alignas(64) float rest[kBlock];    // 1 − e^w
  // The k − k_0 that are safe: not farther than `reach` from `middle`; `reach` is negative when none is.
  alignas(64) float middle[kBlock];
  alignas(64) float reach[kBlock];
  alignas(64) float first_key[kBlock];
  alignas(64) double w[kBlock];
  alignas(64) double exact_decay[kBlock];
  alignas(64) double exact_growth[kBlock];
  alignas(64) double exact_bonus[kBlock];

  explicit Coefficients(const Column& column) {
    const Job& job = column.job;
    alignas(64) float w_row[kBlock], u_row[kBlock];
    column.load_channels(job.w, w_row);
    column.load_channels(job.u, u_row);
    column.load_channels(job.k + column.first() - column.channel(), first_key);
    const D64 d;
    for (std::size_t i = 0; i < kBlock; ++i) w[i] = w_row[i], exact_bonus[i] = u_row[i];
    for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
      const auto exp_w = hn::Exp(d, hn::Load(d, w + i)), exp_u = hn::Exp(d, hn::Load(d, exact_bonus + i));
      const auto exp_minus_w = hn::Exp(d, hn::Neg(hn::Load(d, w + i)));
      hn::Store(exp_minus_w, d, exact_decay + i);
      hn::Store(exp_w, d, exact_growth + i);
      hn::Store(exp_u, d, exact_bonus + i);
      store_f32(exp_minus_w, decay + i);
      store_f32(exp_u, bonus + i);
      store_f32(exp_w, growth + i);
      store_f32(hn::Sub(hn::Set(d, 1.0), exp_w), rest + i);
    }
    const bool released = job.form == Wkv::kReleasedKernel;
    const auto tokens = static_cast<float>(job.tiling.tokens());
    const auto run = static_cast<float>(job.tiling.run());
    for (std::size_t i = 0; i < kBlock; ++i) {
      const bool possible =
          u_row[i] >= kLowestBonus && w_row[i] == w_row[i] && (!released || w_row[i] * run <= kHighestRunDecay);
      const float highest = kHighest - std::max(0.0F, -w_row[i] * tokens) - std::max(0.0F, u_row[i]);
      middle[i] = (highest + kLowest) / 2;
      reach[i] = possible ? (highest - kLowest) / 2 : -1;
    }
  }
};

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

// What goes from tile to tile.
struct State {
  Carry behind, before, run, rest;
  Carry before_of_gradients;                 // PG
  Carry all_late, run_late, rest_late;       // I, J, Y
  alignas(64) double by_decay[kBlock] = {};  // the gradients of λ, of e^w in X's recurrence over 1 − e^w, of 1 − e^w,
  alignas(64) double by_growth[kBlock] = {};  // and of e^u
  alignas(64) double by_rest[kBlock] = {};
  alignas(64) double by_bonus[kBlock] = {};
};

// A tile of a column, and lanes i… of it.
struct Tile {
  const Column& column;
  std::int64_t begin, end;
  std::int64_t slots;

  float* row(std::int64_t t, std::size_t i) const { return column.buffer + t * slots * kBlock + i; }
  std::size_t count(std::size_t i) const { return static_cast<std::size_t>(column.width()) - i; }
  std::int64_t element(std::int64_t t) const { return column.first() + t * column.stride(); }
};

// A carry may be the sum over many tiles: multiplied by e^{−w} ≈ 1 token after token, it would round the same way each
// time. So the sums within the tile start from zero and the carries come in through a power of e^{−w}.
template <bool kCarries>
HWY_INLINE Pair with_carry(Pair sum, V32 power, Pair carry) {
  if constexpr (kCarries) return mul_add(power, carry, sum);
  return sum;
}

// Sweep 1. Returns whether all keys fit.
template <bool kCarries>
HWY_INLINE bool sweep_behind(const Tile& tile, const Coefficients& c, const Factors& factors, State& state) {
  const D32 d;
  const Column& column = tile.column;
  const Job& job = column.job;
  const std::int64_t ahead = column.ahead(), soon = column.soon();
  bool fits = true;
  Carry sums;
  for (std::size_t i = 0; i < static_cast<std::size_t>(column.width()); i += hn::Lanes(d)) {
    const std::size_t count = tile.count(i);
    const auto first = hn::Load(d, c.first_key + i);
    const auto middle = hn::Load(d, c.middle + i);
    const auto decay = hn::Load(d, c.decay + i);
    const Pair carry = kCarries ? state.behind.load(i) : zero_pair();
    auto power = hn::Set(d, 1.0F);
    auto farthest = hn::Zero(DInt());
    Pair behind = zero_pair();
    for (std::int64_t t = tile.end - 1; t >= tile.begin; --t) {
      const std::int64_t at = tile.element(t) + static_cast<std::int64_t>(i);
      const std::int64_t next = tile.element(std::max<std::int64_t>(t - ahead, 0)) + soon;
      hwy::Prefetch(job.k + next);
      hwy::Prefetch(job.v + next);
      const auto e = weigh(hn::Sub(load_lanes(d, job.k + at, count), first), middle, farthest);
      const auto v = load_lanes(d, job.v + at, count);
      float* row = tile.row(t, i);
      hn::Store(e, d, row + kKey * kBlock);
      hn::Store(v, d, row + kValue * kBlock);
      store_pair(with_carry<kCarries>(behind, power, carry), row + kBehind * kBlock);
      behind = mul_add(decay, behind, {hn::Mul(e, v), e});
      if constexpr (kCarries) power = hn::Mul(power, decay);
    }
    fits = fits && all_fit(farthest, c.reach + i);
    if constexpr (kCarries) put(behind, i, sums);
  }
  if constexpr (kCarries) state.behind.age(factors.decay, sums);
  return fits;
}

// Sweep 2.
template <bool kReleased, bool kCarries>
HWY_INLINE void sweep_gradients(const Tile& tile, const Coefficients& c, const Factors& factors, State& state) {
  const D32 d;
  const Column& column = tile.column;
  const std::int64_t run_length = column.job.tiling.run();
  const std::int64_t ahead = column.ahead(), soon = column.soon(), last = column.tokens() - 1;
  const bool starts_run = kReleased && tile.begin % run_length == 0;
  Carry before_sums, run_sums, rest_sums, gradient_sums;
  for (std::size_t i = 0; i < static_cast<std::size_t>(column.width()); i += hn::Lanes(d)) {
    const std::size_t count = tile.count(i);
    const auto decay = hn::Load(d, c.decay + i);
    const auto bonus = hn::Load(d, c.bonus + i);
    [[maybe_unused]] const auto growth = hn::Load(d, c.growth + i);
    [[maybe_unused]] const auto rest_factor = hn::Load(d, c.rest + i);
    Pair before_carry = kCarries ? state.before.load(i) : zero_pair();
    Pair run_carry = kCarries && kReleased ? state.run.load(i) : zero_pair();
    Pair rest_carry = kCarries && kReleased ? state.rest.load(i) : zero_pair();
    const Pair gradient_carry = kCarries ? state.before_of_gradients.load(i) : zero_pair();
    auto power = hn::Set(d, 1.0F), rest_power = growth;
    Pair before = zero_pair(), run = zero_pair(), rest = zero_pair(), gradients = zero_pair();
    auto by_decay = hn::Zero(d), by_bonus = hn::Zero(d), by_rest = hn::Zero(d);
    [[maybe_unused]] std::int64_t to_next_run = (run_length - tile.begin % run_length) % run_length;
    for (std::int64_t t = tile.begin; t < tile.end; ++t) {
      hwy::Prefetch(column.job.gy + tile.element(std::min(t + ahead, last)) + soon);
      float* row = tile.row(t, i);
      const auto e = hn::Load(d, row + kKey * kBlock);
      const auto v = hn::Load(d, row + kValue * kBlock);
      const Pair x = {hn::Mul(e, v), e};
      const Pair behind = load_pair(row + kBehind * kBlock);
      Pair others = kReleased ? decay * behind : behind;
      [[maybe_unused]] Pair rest_here = zero_pair();
      if constexpr (kReleased) {
        Pair run_here = with_carry<kCarries>(run, power, run_carry);
        store_pair(run_here, row + kRun * kBlock);  // where a run begins, Q'
        if (to_next_run-- == 0) {
          to_next_run = run_length - 1;
          before = mul_add(decay, run, before);
          before_carry = mul_add(decay, run_carry, before_carry);
          run = run_carry = run_here = rest = rest_carry = zero_pair();
        } else {
          rest = mul_add(growth, rest, x);
          rest_here = with_carry<kCarries>(rest, rest_power, rest_carry);
        }
        store_pair(rest_here, row + kRest * kBlock);
        others = mul_add(rest_factor, rest_here, others + run_here);
      }
      const Pair before_here = with_carry<kCarries>(before, power, before_carry);
      store_pair(before_here, row + kBefore * kBlock);
      others = others + before_here;

      const Pair sum = mul_add(bonus, x, others);
      const auto inverse = hn::Div(hn::Set(d, 1.0F), sum.d);
      const auto y = hn::Mul(sum.n, inverse);
      // v_t − y_t, of which the token itself is no part: exact for a single token, precise where it outweighs the
      // others.
      const auto difference = hn::Mul(inverse, hn::MulSub(v, others.d, others.n));
      const auto gy = load_lanes(d, column.job.gy + tile.element(t) + static_cast<std::int64_t>(i), count);
      const auto g = hn::Mul(gy, inverse);
      const Pair gradient = {g, hn::Neg(hn::Mul(g, y))};
      store_pair(gradient, row + kGradient * kBlock);

      const Pair gradients_here = with_carry<kCarries>(gradients, power, gradient_carry);
      const auto own = hn::Mul(g, difference);
      by_bonus = hn::MulAdd(e, own, by_bonus);
      if constexpr (kReleased) {
        const Pair aged = decay * gradients_here;
        by_rest = add_product(rest_here, gradient, by_rest);
        by_decay = add_product(behind, aged + gradient, by_decay);
        store_pair({aged.n, hn::MulAdd(bonus, own, aged.d)}, row + kTransposed * kBlock);
        before = decay * before;
        run = mul_add(decay, run, x);
        if constexpr (kCarries) rest_power = hn::Mul(rest_power, growth);
      } else {
        by_decay = add_product(behind, gradients_here, by_decay);
        store_pair({gradients_here.n, hn::MulAdd(bonus, own, gradients_here.d)}, row + kTransposed * kBlock);
        before = mul_add(decay, before, x);
      }
      gradients = mul_add(decay, gradients, gradient);
      if constexpr (kCarries) power = hn::Mul(power, decay);
    }
    add_to(by_decay, i, state.by_decay);
    add_to(by_bonus, i, state.by_bonus);
    if constexpr (kReleased) add_to(by_rest, i, state.by_rest);
    if constexpr (kCarries) {
      put(before, i, before_sums);
      put(gradients, i, gradient_sums);
      if constexpr (kReleased) put(run, i, run_sums), put(rest, i, rest_sums);
    }
  }
  if constexpr (kCarries) {
    if constexpr (kReleased) {
      if (starts_run) {
        state.before.add_product(c.exact_decay, state.run);
        state.run.clear();
        state.rest.clear();
      }
      state.run.age(factors.decay, run_sums);
      state.rest.age(factors.growth, rest_sums);
    }
    state.before.age(factors.decay, before_sums);
    state.before_of_gradients.age(factors.decay, gradient_sums);
  }
}

// Sweep 3.
template <bool kReleased, bool kCarries>
HWY_INLINE void sweep_results(const Tile& tile, const Coefficients& c, const Factors& factors, State& state) {
  const D32 d;
  const Column& column = tile.column;
  const Job& job = column.job;
  const std::int64_t run_length = job.tiling.run();
  const std::int64_t ahead = column.ahead(), soon = column.soon();
  Carry all_sums, run_sums, rest_sums;
  // Whether a run begins within the tile: the gradients of what it took in come from I then, and those of X end there.
  const bool has_start = kReleased && (tile.end - 1) / run_length * run_length >= tile.begin;
  for (std::size_t i = 0; i < static_cast<std::size_t>(column.width()); i += hn::Lanes(d)) {
    const std::size_t count = tile.count(i);
    const auto decay = hn::Load(d, c.decay + i);
    const auto bonus = hn::Load(d, c.bonus + i);
    [[maybe_unused]] const auto growth = hn::Load(d, c.growth + i);
    [[maybe_unused]] const auto rest_factor = hn::Load(d, c.rest + i);
    const Pair all_carry = kCarries ? state.all_late.load(i) : zero_pair();
    Pair run_carry = kCarries && kReleased ? state.run_late.load(i) : zero_pair();
    Pair rest_carry = kCarries && kReleased ? state.rest_late.load(i) : zero_pair();
    auto power = hn::Set(d, 1.0F), rest_power = power;
    Pair all = zero_pair(), run = zero_pair(), rest = zero_pair();
    auto by_decay = hn::Zero(d), by_growth = hn::Zero(d);
    [[maybe_unused]] std::int64_t from_start = (tile.end - 1) % run_length;
    for (std::int64_t t = tile.end - 1; t >= tile.begin; --t) {
      const std::int64_t at = tile.element(t) + static_cast<std::int64_t>(i);
      const std::int64_t next = tile.element(std::max<std::int64_t>(t - ahead, 0)) + soon;
      hwy::Prefetch(job.gk + next);
      hwy::Prefetch(job.gv + next);
      const float* row = tile.row(t, i);
      const Pair gradient = load_pair(row + kGradient * kBlock);
      const Pair before = load_pair(row + kBefore * kBlock);
      Pair transposed = load_pair(row + kTransposed * kBlock);
      const Pair all_here = with_carry<kCarries>(all, power, all_carry);
      by_decay = add_product(before, all_here, by_decay);
      all = mul_add(decay, all, gradient);
      if constexpr (kReleased) {
        const Pair run_here = with_carry<kCarries>(run, power, run_carry);
        const Pair rest_here = with_carry<kCarries>(rest, rest_power, rest_carry);
        const Pair run_sum = load_pair(row + kRun * kBlock);
        by_growth = add_product(load_pair(row + kRest * kBlock), rest_here, by_growth);
        transposed = transposed + run_here;
        power = hn::Mul(power, decay);
        if (from_start-- == 0) {
          from_start = run_length - 1;
          by_decay = add_product(run_sum, with_carry<kCarries>(all, power, all_carry), by_decay);
          run = decay * all;
          run_carry = decay * all_carry;
          rest = rest_carry = zero_pair();
        } else {
          by_decay = add_product(run_sum, run_here, by_decay);
          transposed = mul_add(rest_factor, mul_add(growth, rest_here, gradient), transposed);
          run = mul_add(decay, run, gradient);
          rest = mul_add(growth, rest, gradient);
          if constexpr (kCarries) rest_power = hn::Mul(rest_power, growth);
        }
      } else {
        transposed = transposed + all_here;
        if constexpr (kCarries) power = hn::Mul(power, decay);
      }
      const auto e = hn::Load(d, row + kKey * kBlock);
      const auto gv = hn::Mul(e, hn::MulAdd(bonus, gradient.n, transposed.n));
      const auto gk = hn::Mul(e, hn::MulAdd(hn::Load(d, row + kValue * kBlock), transposed.n, transposed.d));
      store_lanes(gv, d, job.gv + at, count);
      store_lanes(gk, d, job.gk + at, count);
    }
    add_to(by_decay, i, state.by_decay);
    if constexpr (kReleased) add_to(by_growth, i, state.by_growth);
    if constexpr (kCarries) {
      put(all, i, all_sums);
      if constexpr (kReleased) put(run, i, run_sums), put(rest, i, rest_sums);
    }
  }
  if constexpr (kCarries) {
    if constexpr (kReleased) {
      if (has_start) {
        state.run_late.clear();
        state.run_late.add_product(c.exact_decay, state.all_late);
        state.rest_late.clear();
      }
      state.run_late.age(factors.decay, run_sums);
      state.rest_late.age(factors.growth, rest_sums);
    }
    state.all_late.age(factors.decay, all_sums);
  }
}

template <bool kReleased, bool kCarries>
HWY_INLINE bool sweep_column(const Column& column, const Coefficients& c, State& state) {
  const Tiling& tiling = column.job.tiling;
  const auto tile = [&](std::int64_t index) {
    return Tile{column, tiling.begin(index), tiling.end(index), kReleased ? kReleasedSlots : kPaperSlots};
  };
  Factors factors;
  const auto prepared = [&](std::int64_t index) HWY_ATTR {
    const Tile next = tile(index);
    if constexpr (kCarries) factors.set(c, next.end - next.begin);
    return next;
  };
  for (std::int64_t i = tiling.count() - 1; i >= 0; --i) {
    if (!sweep_behind<kCarries>(prepared(i), c, factors, state)) return false;
  }
  for (std::int64_t i = 0; i < tiling.count(); ++i) {
    sweep_gradients<kReleased, kCarries>(prepared(i), c, factors, state);
  }
  for (std::int64_t i = tiling.count() - 1; i >= 0; --i) {
    sweep_results<kReleased, kCarries>(prepared(i), c, factors, state);
  }
  return true;
}

template <bool kReleased>
HWY_INLINE bool grad_column_of_form(const Column& column) {
  const Coefficients c(column);
  State state;
  const bool fits = column.job.tiling.count() == 1 ? sweep_column<kReleased, false>(column, c, state)
                                                   : sweep_column<kReleased, true>(column, c, state);
  if (!fits) return false;
  Partial& partial = column.partial();
  for (std::size_t i = 0; i < kBlock; ++i) {
    partial.w[i] = -c.exact_decay[i] * state.by_decay[i];
    partial.u[i] = c.exact_bonus[i] * state.by_bonus[i];
    if (!kReleased) continue;
    const double growth = c.exact_growth[i];
    partial.w[i] += growth * ((1 - growth) * state.by_growth[i] - state.by_rest[i]);
  }
  return true;
}

}  // namespace HWY_NAMESPACE
}  // namespace weft::bi_wkv_grad
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
