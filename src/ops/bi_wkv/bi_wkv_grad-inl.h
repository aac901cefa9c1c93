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
#include "hwy/highway.h"
#include "ops/bi_wkv/bi_wkv_grad_plan.h"
#include "ops/bi_wkv/bi_wkv_grad_sums-inl.h"

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

// A tile, and what all of its sweeps work with.
struct Tile {
  std::int64_t begin, end;
  Rows rows;
  const Coefficients& c;
  const Factors& factors;

  std::size_t count(std::size_t i) const { return static_cast<std::size_t>(rows.width) - i; }
};

// Sweep 1. Returns whether all keys fit.
template <bool kCarries>
HWY_INLINE bool sweep_behind(const Tile& tile, const float* first_key, State& state) {
  const D32 d;
  const Rows rows = tile.rows;
  bool fits = true;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows.width); i += hn::Lanes(d)) {
    const std::size_t count = tile.count(i);
    const auto first = hn::Load(d, first_key + i);
    const auto middle = hn::Load(d, tile.c.middle + i);
    const auto decay = hn::Load(d, tile.c.decay + i);
    const Pair carry = carry_in<kCarries>(state.behind, i);
    auto power = hn::Set(d, 1.0F);
    auto farthest = hn::Zero(DInt());
    Pair behind = zero_pair();
    for (std::int64_t t = tile.end - 1; t >= tile.begin; --t) {
      hwy::Prefetch(rows.k + rows.before(t));
      hwy::Prefetch(rows.v + rows.before(t));
      const auto k = load_lanes(d, rows.k + t * rows.stride + i, count);
      const auto v = load_lanes(d, rows.v + t * rows.stride + i, count);
      const auto e = weigh(hn::Sub(k, first), middle, farthest);
      float* row = rows.kept + t * rows.kept_stride + i;
      hn::Store(e, d, row + kKey * kBlock);
      hn::Store(v, d, row + kValue * kBlock);
      store_pair(with_carry<kCarries>(behind, power, carry), row + kBehind * kBlock);
      behind = mul_add(decay, behind, {hn::Mul(e, v), e});
      if constexpr (kCarries) power = hn::Mul(power, decay);
    }
    fits = fits && all_fit(farthest, tile.c.reach + i);
    if constexpr (kCarries) state.behind.age(tile.factors.decay, behind, i);
  }
  return fits;
}

// P, Q and X within a tile, lanes i….
template <bool kReleased, bool kCarries>
struct SumsBefore {
  V32 decay, growth, rest_factor;
  Pair before, run, rest;
  Pair before_carry, run_carry, rest_carry;
  V32 power, rest_power;
  std::int64_t run_length, to_next_run;
  Pair rest_here;  // X_t

  HWY_INLINE SumsBefore(const Tile& tile, const State& state, std::size_t i)
      : decay(hn::Load(D32(), tile.c.decay + i)),
        growth(hn::Load(D32(), tile.c.growth + i)),
        rest_factor(hn::Load(D32(), tile.c.rest + i)),
        before(zero_pair()),
        run(before),
        rest(before),
        before_carry(carry_in<kCarries>(state.before, i)),
        run_carry(carry_in < kCarries && kReleased > (state.run, i)),
        rest_carry(carry_in < kCarries && kReleased > (state.rest, i)),
        power(hn::Set(D32(), 1.0F)),
        rest_power(growth),
        run_length(tile.rows.run),
        to_next_run((tile.rows.run - tile.begin % tile.rows.run) % tile.rows.run),
        rest_here(before) {}

  // All of (N_t, D_t) but the token's own e^u·x_t. Leaves P, Q and X in the row; where a run begins, Q'.
  HWY_INLINE Pair at(Pair x, Pair behind, float* row) {
    Pair others = behind;
    if constexpr (kReleased) {
      Pair run_here = with_carry<kCarries>(run, power, run_carry);
      store_pair(run_here, row + kRun * kBlock);
      if (to_next_run-- == 0) {
        to_next_run += run_length;
        before = mul_add(decay, run, before);
        before_carry = mul_add(decay, run_carry, before_carry);
        run = run_carry = run_here = rest = rest_carry = rest_here = zero_pair();
      } else {
        rest = mul_add(growth, rest, x);
        rest_here = with_carry<kCarries>(rest, rest_power, rest_carry);
      }
      store_pair(rest_here, row + kRest * kBlock);
      others = mul_add(rest_factor, rest_here, mul_add(decay, behind, run_here));
    }
    const Pair before_here = with_carry<kCarries>(before, power, before_carry);
    store_pair(before_here, row + kBefore * kBlock);
    return others + before_here;
  }

  // On to the next token.
  HWY_INLINE void pass(Pair x) {
    if constexpr (kReleased) {
      before = decay * before;
      run = mul_add(decay, run, x);
      if constexpr (kCarries) rest_power = hn::Mul(rest_power, growth);
    } else {
      before = mul_add(decay, before, x);
    }
    if constexpr (kCarries) power = hn::Mul(power, decay);
  }

  // On to the next tile.
  HWY_INLINE void leave(const Tile& tile, State& state, std::size_t i) const {
    if constexpr (kReleased) {
      if (tile.begin % tile.rows.run == 0) {
        state.before.add_product(tile.c.exact_decay, state.run, i);
        state.run.clear(i);
        state.rest.clear(i);
      }
      state.run.age(tile.factors.decay, run, i);
      state.rest.age(tile.factors.growth, rest, i);
    }
    state.before.age(tile.factors.decay, before, i);
  }
};

// Sweep 2.
template <bool kReleased, bool kCarries>
HWY_INLINE void sweep_gradients(const Tile& tile, State& state) {
  const D32 d;
  const Rows rows = tile.rows;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows.width); i += hn::Lanes(d)) {
    const std::size_t count = tile.count(i);
    const auto decay = hn::Load(d, tile.c.decay + i);
    const auto bonus = hn::Load(d, tile.c.bonus + i);
    SumsBefore<kReleased, kCarries> sums(tile, state, i);
    Pair gradients = zero_pair();
    const Pair gradient_carry = carry_in<kCarries>(state.before_of_gradients, i);
    auto by_decay = hn::Zero(d), by_bonus = hn::Zero(d), by_rest = hn::Zero(d);
    for (std::int64_t t = tile.begin; t < tile.end; ++t) {
      hwy::Prefetch(rows.gy + rows.after(t));
      float* row = rows.kept + t * rows.kept_stride + i;
      const auto e = hn::Load(d, row + kKey * kBlock);
      const auto v = hn::Load(d, row + kValue * kBlock);
      const Pair x = {hn::Mul(e, v), e};
      const Pair behind = load_pair(row + kBehind * kBlock);
      const Pair others = sums.at(x, behind, row);
      const Pair all = mul_add(bonus, x, others);
      const auto inverse = hn::Div(hn::Set(d, 1.0F), all.d);
      const auto g = hn::Mul(load_lanes(d, rows.gy + t * rows.stride + i, count), inverse);
      const Pair gradient = {g, hn::Neg(hn::Mul(g, hn::Mul(all.n, inverse)))};
      store_pair(gradient, row + kGradient * kBlock);

      // g_t·(v_t − y_t), of which the token itself is no part: exact for a single token, precise where it outweighs the
      // others.
      const auto own = hn::Mul(g, hn::Mul(inverse, hn::MulSub(v, others.d, others.n)));
      by_bonus = hn::MulAdd(e, own, by_bonus);
      Pair transposed = with_carry<kCarries>(gradients, sums.power, gradient_carry);
      if constexpr (kReleased) {
        transposed = decay * transposed;
        by_decay = add_product(behind, transposed + gradient, by_decay);
        by_rest = add_product(sums.rest_here, gradient, by_rest);
      } else {
        by_decay = add_product(behind, transposed, by_decay);
      }
      transposed.d = hn::MulAdd(bonus, own, transposed.d);
      store_pair(transposed, row + kTransposed * kBlock);
      gradients = mul_add(decay, gradients, gradient);
      sums.pass(x);
    }
    add_to(by_decay, state.by_decay + i);
    add_to(by_bonus, state.by_bonus + i);
    if constexpr (kReleased) add_to(by_rest, state.by_rest + i);
    if constexpr (kCarries) {
      sums.leave(tile, state, i);
      state.before_of_gradients.age(tile.factors.decay, gradients, i);
    }
  }
}

// I, J and Y within a tile, lanes i….
template <bool kReleased, bool kCarries>
struct GradientsBehind {
  V32 decay, growth, rest_factor;
  Pair all, run, rest;
  Pair all_carry, run_carry, rest_carry;
  V32 power, rest_power;
  std::int64_t run_length, from_start;
  V32 by_decay, by_growth;

  HWY_INLINE GradientsBehind(const Tile& tile, const State& state, std::size_t i)
      : decay(hn::Load(D32(), tile.c.decay + i)),
        growth(hn::Load(D32(), tile.c.growth + i)),
        rest_factor(hn::Load(D32(), tile.c.rest + i)),
        all(zero_pair()),
        run(all),
        rest(all),
        all_carry(carry_in<kCarries>(state.all_late, i)),
        run_carry(carry_in < kCarries && kReleased > (state.run_late, i)),
        rest_carry(carry_in < kCarries && kReleased > (state.rest_late, i)),
        power(hn::Set(D32(), 1.0F)),
        rest_power(power),
        run_length(tile.rows.run),
        from_start((tile.end - 1) % tile.rows.run),
        by_decay(hn::Zero(D32())),
        by_growth(by_decay) {}

  // Of A and B of a token what comes from this one, but for its bonus, and from those behind. Goes on to the one
  // before.
  HWY_INLINE Pair pass(const float* row) {
    const Pair gradient = load_pair(row + kGradient * kBlock);
    const Pair all_here = with_carry<kCarries>(all, power, all_carry);
    by_decay = add_product(load_pair(row + kBefore * kBlock), all_here, by_decay);
    all = mul_add(decay, all, gradient);
    if constexpr (kReleased) return pass_run(row, gradient);
    if constexpr (kCarries) power = hn::Mul(power, decay);
    return all_here;
  }

  // The same of the released kernel, after I.
  HWY_INLINE Pair pass_run(const float* row, Pair gradient) {
    const Pair run_here = with_carry<kCarries>(run, power, run_carry);
    const Pair rest_here = with_carry<kCarries>(rest, rest_power, rest_carry);
    const Pair run_sum = load_pair(row + kRun * kBlock);
    by_growth = add_product(load_pair(row + kRest * kBlock), rest_here, by_growth);
    if constexpr (kCarries) power = hn::Mul(power, decay);
    if (from_start-- == 0) {
      from_start += run_length;
      by_decay = add_product(run_sum, with_carry<kCarries>(all, power, all_carry), by_decay);
      run = decay * all;
      run_carry = decay * all_carry;
      rest = rest_carry = zero_pair();
      return run_here;
    }
    by_decay = add_product(run_sum, run_here, by_decay);
    run = mul_add(decay, run, gradient);
    rest = mul_add(growth, rest, gradient);
    if constexpr (kCarries) rest_power = hn::Mul(rest_power, growth);
    return mul_add(rest_factor, mul_add(growth, rest_here, gradient), run_here);
  }

  // On to the tile before.
  HWY_INLINE void leave(const Tile& tile, State& state, std::size_t i) const {
    if constexpr (kReleased) {
      const bool has_start = (tile.end - 1) / tile.rows.run * tile.rows.run >= tile.begin;
      if (has_start) {
        state.run_late.clear(i);
        state.run_late.add_product(tile.c.exact_decay, state.all_late, i);
        state.rest_late.clear(i);
      }
      state.run_late.age(tile.factors.decay, run, i);
      state.rest_late.age(tile.factors.growth, rest, i);
    }
    state.all_late.age(tile.factors.decay, all, i);
  }
};

// Sweep 3.
template <bool kReleased, bool kCarries>
HWY_INLINE void sweep_results(const Tile& tile, State& state) {
  const D32 d;
  const Rows rows = tile.rows;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows.width); i += hn::Lanes(d)) {
    const std::size_t count = tile.count(i);
    const auto bonus = hn::Load(d, tile.c.bonus + i);
    GradientsBehind<kReleased, kCarries> gradients(tile, state, i);
    for (std::int64_t t = tile.end - 1; t >= tile.begin; --t) {
      hwy::Prefetch(rows.gk + rows.before(t));
      hwy::Prefetch(rows.gv + rows.before(t));
      const float* row = rows.kept + t * rows.kept_stride + i;
      const Pair transposed = load_pair(row + kTransposed * kBlock) + gradients.pass(row);
      const auto e = hn::Load(d, row + kKey * kBlock);
      const auto v = hn::Load(d, row + kValue * kBlock);
      const auto g = hn::Load(d, row + kGradient * kBlock);
      const auto gv = hn::Mul(e, hn::MulAdd(bonus, g, transposed.n));
      const auto gk = hn::Mul(e, hn::MulAdd(v, transposed.n, transposed.d));
      store_lanes(gv, d, rows.gv + t * rows.stride + i, count);
      store_lanes(gk, d, rows.gk + t * rows.stride + i, count);
    }
    add_to(gradients.by_decay, state.by_decay + i);
    if constexpr (kReleased) add_to(gradients.by_growth, state.by_growth + i);
    if constexpr (kCarries) gradients.leave(tile, state, i);
  }
}

template <bool kReleased, bool kCarries>
HWY_INLINE bool sweep_column(const Column& column, State& state) {
  const Tiling& tiling = column.job.tiling;
  const Rows rows(column, kReleased ? kReleasedSlots : kPaperSlots);
  alignas(64) float first_key[kBlock];
  column.job.load_channels(column.job.k + column.entry * rows.tokens * rows.stride, column.block, first_key);
  Factors factors;
  const auto tile = [&](std::int64_t index) HWY_ATTR {
    const std::int64_t begin = tiling.begin(index), end = tiling.end(index);
    if constexpr (kCarries) factors.set(column.coefficients(), end - begin);
    return Tile{begin, end, rows, column.coefficients(), factors};
  };
  state.clear<kCarries>();
  for (std::int64_t i = tiling.count() - 1; i >= 0; --i) {
    if (!sweep_behind<kCarries>(tile(i), first_key, state)) return false;
  }
  for (std::int64_t i = 0; i < tiling.count(); ++i) sweep_gradients<kReleased, kCarries>(tile(i), state);
  for (std::int64_t i = tiling.count() - 1; i >= 0; --i) sweep_results<kReleased, kCarries>(tile(i), state);
  return true;
}

// Returns whether the column's keys are in the range of f32; if not, nothing is written.
template <bool kReleased>
HWY_INLINE bool grad_column_of_form(const Column& column) {
  const Coefficients& c = column.coefficients();
  State state;
  const bool fits = column.job.tiling.count() == 1 ? sweep_column<kReleased, false>(column, state)
                                                   : sweep_column<kReleased, true>(column, state);
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
