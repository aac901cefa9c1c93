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
// Each of these sums is linear in what it is made of, so gradients go through them the other way round. G_t = (g_t,
// h_t) is the gradient of (N_t, D_t). Then
//
//   the gradient of S_{t−1} is PG_t                      PG_{t+1} = λ·PG_t + G_t
//   the gradient of P_{t+1} is I_t                       I_{t−1} = λ·I_t + G_t
//
// and for the released kernel, with P' and Q' for P and Q before a run that begins there takes Q in,
//
//   the gradient of S_{t−1} is λ·PG_t
//   the gradient of P'_{t+1} is I_t
//   the gradient of Q'_{t+1} is J_t                      J_{t−1} = λ·J_t + G_t, but λ·I_{t−1} where t begins a run
//   the gradient of X_t is (1 − e^w)·Y_t                 Y_t = e^w·Y_{t+1} + G_t, without Y_{t+1} where t + 1 does
//
// A token's A and B are the sum of the gradients of all sums that take it in, and λ and e^w get the products of a sum
// and the gradient of its successor.
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
  std::int64_t origin;  // the first token of the segment
  Rows rows;
  const Coefficients& c;
  const Factors& factors;

  std::size_t count(std::size_t i) const { return static_cast<std::size_t>(rows.width) - i; }
};

// Sweep 1. Returns whether all keys fit.
template <bool kCarries>
HWY_NOINLINE bool sweep_behind(const Tile& tile, const float* first_key, State& state) {
  const D32 d;
  const Rows rows = tile.rows;
  const std::int64_t origin = tile.origin;
  bool fits = true;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows.width); i += hn::Lanes(d)) {
    const std::size_t count = tile.count(i);
    const auto first = hn::Load(d, first_key + i);
    const auto middle = hn::Load(d, tile.c.middle + i);
    const auto decay = hn::Load(d, tile.c.decay + i);
    const Pair carry = carry_in<kCarries>(state.sums.behind, i);
    auto power = hn::Set(d, 1.0F);
    auto farthest = hn::Zero(DInt());
    Pair behind = zero_pair();
    for (std::int64_t t = tile.end - 1; t >= tile.begin; --t) {
      hwy::Prefetch(rows.k + rows.before(t));
      hwy::Prefetch(rows.v + rows.before(t));
      const auto k = load_lanes(d, rows.k + t * rows.stride + i, count);
      const auto v = load_lanes(d, rows.v + t * rows.stride + i, count);
      const auto e = weigh(hn::Sub(k, first), middle, farthest);
      float* row = rows.kept + (t - origin) * rows.kept_stride + i;
      hn::Store(e, d, row + kKey * kBlock);
      hn::Store(v, d, row + kValue * kBlock);
      store_pair(with_carry<kCarries>(behind, power, carry), row + kBehind * kBlock);
      behind = mul_add(decay, behind, {hn::Mul(e, v), e});
      if constexpr (kCarries) power = hn::Mul(power, decay);
    }
    fits = fits && all_fit(farthest, tile.c.reach + i);
    if constexpr (kCarries) state.sums.behind.age(tile.factors.decay, behind, i);
  }
  return fits;
}

// P, Q and X within a tile, lanes i….
template <bool kReleased, bool kCarries>
struct SumsBefore {
  static constexpr bool kOfRuns = kReleased && kCarries;

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
        before_carry(carry_in<kCarries>(state.sums.before, i)),
        run_carry(carry_in<kOfRuns>(state.sums.run, i)),
        rest_carry(carry_in<kOfRuns>(state.sums.rest, i)),
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
        state.sums.before.add_product(tile.c.exact_decay, state.sums.run, i);
        state.sums.run.clear(i);
        state.sums.rest.clear(i);
      }
      state.sums.run.age(tile.factors.decay, run, i);
      state.sums.rest.age(tile.factors.growth, rest, i);
    }
    state.sums.before.age(tile.factors.decay, before, i);
  }
};

// Sweep 2.
template <bool kReleased, bool kCarries>
HWY_NOINLINE void sweep_gradients(const Tile& tile, State& state) {
  const D32 d;
  const Rows rows = tile.rows;
  const std::int64_t origin = tile.origin;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows.width); i += hn::Lanes(d)) {
    const std::size_t count = tile.count(i);
    const auto decay = hn::Load(d, tile.c.decay + i);
    const auto bonus = hn::Load(d, tile.c.bonus + i);
    SumsBefore<kReleased, kCarries> sums(tile, state, i);
    Pair gradients = zero_pair();
    const Pair gradient_carry = carry_in<kCarries>(state.sums.gradients, i);
    auto by_decay = hn::Zero(d), by_bonus = hn::Zero(d), by_rest = hn::Zero(d);
    for (std::int64_t t = tile.begin; t < tile.end; ++t) {
      hwy::Prefetch(rows.gy + rows.after(t));
      float* row = rows.kept + (t - origin) * rows.kept_stride + i;
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
    add_to(by_decay, state.totals.decay + i);
    add_to(by_bonus, state.totals.bonus + i);
    if constexpr (kReleased) add_to(by_rest, state.totals.rest + i);
    if constexpr (kCarries) {
      sums.leave(tile, state, i);
      state.sums.gradients.age(tile.factors.decay, gradients, i);
    }
  }
}

// I, J and Y within a tile, lanes i….
template <bool kReleased, bool kCarries>
struct GradientsBehind {
  static constexpr bool kOfRuns = kReleased && kCarries;

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
        all_carry(carry_in<kCarries>(state.all, i)),
        run_carry(carry_in<kOfRuns>(state.run, i)),
        rest_carry(carry_in<kOfRuns>(state.rest, i)),
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
        state.run.clear(i);
        state.run.add_product(tile.c.exact_decay, state.all, i);
        state.rest.clear(i);
      }
      state.run.age(tile.factors.decay, run, i);
      state.rest.age(tile.factors.growth, rest, i);
    }
    state.all.age(tile.factors.decay, all, i);
  }
};

// Sweep 3.
template <bool kReleased, bool kCarries>
HWY_NOINLINE void sweep_results(const Tile& tile, State& state) {
  const D32 d;
  const Rows rows = tile.rows;
  const std::int64_t origin = tile.origin;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows.width); i += hn::Lanes(d)) {
    const std::size_t count = tile.count(i);
    const auto bonus = hn::Load(d, tile.c.bonus + i);
    GradientsBehind<kReleased, kCarries> gradients(tile, state, i);
    for (std::int64_t t = tile.end - 1; t >= tile.begin; --t) {
      hwy::Prefetch(rows.gk + rows.before(t));
      hwy::Prefetch(rows.gv + rows.before(t));
      const float* row = rows.kept + (t - origin) * rows.kept_stride + i;
      const Pair transposed = load_pair(row + kTransposed * kBlock) + gradients.pass(row);
      const auto e = hn::Load(d, row + kKey * kBlock);
      const auto v = hn::Load(d, row + kValue * kBlock);
      const auto g = hn::Load(d, row + kGradient * kBlock);
      const auto gv = hn::Mul(e, hn::MulAdd(bonus, g, transposed.n));
      const auto gk = hn::Mul(e, hn::MulAdd(v, transposed.n, transposed.d));
      store_lanes(gv, d, rows.gv + t * rows.stride + i, count);
      store_lanes(gk, d, rows.gk + t * rows.stride + i, count);
    }
    add_to(gradients.by_decay, state.totals.decay + i);
    if constexpr (kReleased) add_to(gradients.by_growth, state.totals.growth + i);
    if constexpr (kCarries) gradients.leave(tile, state, i);
  }
}

// The sweeps over the segments of a column.
template <bool kReleased, bool kCarries>
class Sweeps {
 public:
  HWY_INLINE explicit Sweeps(const Column& column)
      : column_(column),
        rows_(column, kReleased ? kReleasedSlots : kPaperSlots),
        state_(*reinterpret_cast<State*>(column.notes)) {
    const Job& job = column.job;
    job.load_channels(job.k + column.entry * rows_.tokens * rows_.stride, column.block, first_key_);
  }

  // The whole of a column of one segment. Returns false, before anything is written, when its keys do not fit.
  HWY_INLINE bool run() {
    start();
    if (!behind(0)) return false;
    gradients(0);
    results(0);
    finish();
    return true;
  }

  // The three rounds of a longer column.
  HWY_INLINE void note_behind(std::int64_t segment) {
    if (segment == last()) start();
    noted(segment).behind = state_.sums.behind;
    state_.fits = state_.fits && behind(segment);
  }
  HWY_INLINE void note_before(std::int64_t segment) {
    if (!state_.fits) return;
    state_.sums.behind = noted(segment).behind;
    noted(segment) = state_.sums;
    behind(segment);
    gradients(segment);
  }
  HWY_INLINE void write_results(std::int64_t segment) {
    if (!state_.fits) return;
    if (segment == last()) state_.totals = {};  // so far they are those of the second round
    state_.sums = noted(segment);
    behind(segment);
    gradients(segment);
    results(segment);
    if (segment == 0) finish();
  }
  bool fits() const { return state_.fits; }

 private:
  HWY_INLINE void start() {
    state_.fits = true;
    state_.totals = {};
    if constexpr (!kCarries) return;
    state_.sums = {};
    state_.all = state_.run = state_.rest = {};
  }
  HWY_INLINE bool behind(std::int64_t segment) {
    for (std::int64_t i = segments().end_tile(segment) - 1; i >= segments().first_tile(segment); --i) {
      if (!sweep_behind<kCarries>(tile(segment, i), first_key_, state_)) return false;
    }
    return true;
  }
  HWY_INLINE void gradients(std::int64_t segment) {
    for (std::int64_t i = segments().first_tile(segment); i < segments().end_tile(segment); ++i) {
      sweep_gradients<kReleased, kCarries>(tile(segment, i), state_);
    }
  }
  HWY_INLINE void results(std::int64_t segment) {
    for (std::int64_t i = segments().end_tile(segment) - 1; i >= segments().first_tile(segment); --i) {
      sweep_results<kReleased, kCarries>(tile(segment, i), state_);
    }
  }
  HWY_INLINE void finish() const {
    const Coefficients& c = column_.coefficients();
    Partial& partial = column_.partial();
    const Totals& by = state_.totals;
    for (std::size_t i = 0; i < kBlock; ++i) {
      partial.w[i] = -c.exact_decay[i] * by.decay[i];
      partial.u[i] = c.exact_bonus[i] * by.bonus[i];
      if (!kReleased) continue;
      const double growth = c.exact_growth[i];
      partial.w[i] += growth * ((1 - growth) * by.growth[i] - by.rest[i]);
    }
  }

  const Segments& segments() const { return column_.job.segments; }
  std::int64_t last() const { return segments().count() - 1; }
  Checkpoint& noted(std::int64_t segment) const { return *reinterpret_cast<Checkpoint*>(column_.checkpoint(segment)); }
  HWY_INLINE Tile tile(std::int64_t segment, std::int64_t index) {
    const Tiling& tiling = column_.job.tiling;
    const std::int64_t begin = tiling.begin(index), end = tiling.end(index);
    if constexpr (kCarries) factors_.set(column_.coefficients(), end - begin);
    return {begin, end, segments().begin(segment), rows_, column_.coefficients(), factors_};
  }

  const Column& column_;
  Rows rows_;
  State& state_;
  Factors factors_;
  alignas(64) float first_key_[kBlock];
};

}  // namespace HWY_NAMESPACE
}  // namespace weft::bi_wkv_grad
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
