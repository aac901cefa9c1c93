// The CPU kernel: the scan. Its plan is in causal_wkv_scan.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/causal_wkv/causal_wkv_cpu.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target first.
#include <algorithm>
#include <limits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernel/math-inl.h"
#include "kernel/simd.h"
#include "ops/causal_wkv/causal_wkv.h"
#include "ops/causal_wkv/causal_wkv_scan.h"

HWY_BEFORE_NAMESPACE();
namespace weft::causal_wkv_scan {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, kBlock>;
using V = hn::Vec<D>;

// `count` elements, a vector at most, from element `at` on; zero beyond.
HWY_INLINE V load_row(const std::byte* data, bool is_bf16, std::int64_t at, std::size_t count) {
  const D d;
  if (is_bf16) {
    const auto* const from = reinterpret_cast<const std::uint16_t*>(data) + at;
    return count >= hn::Lanes(d) ? weft::HWY_NAMESPACE::load_bf16(d, from)
                                 : weft::HWY_NAMESPACE::load_bf16_n(d, from, count);
  }
  return weft::HWY_NAMESPACE::load_lanes(d, reinterpret_cast<const float*>(data) + at, count);
}

HWY_INLINE void store_row(V row, std::byte* data, bool is_bf16, std::int64_t at, std::size_t count) {
  const D d;
  if (is_bf16) {
    auto* const to = reinterpret_cast<std::uint16_t*>(data) + at;
    return count >= hn::Lanes(d) ? weft::HWY_NAMESPACE::store_bf16(row, d, to)
                                 : weft::HWY_NAMESPACE::store_bf16_n(row, d, to, count);
  }
  weft::HWY_NAMESPACE::store_lanes(row, d, reinterpret_cast<float*>(data) + at, count);
}

HWY_INLINE void prefetch(const std::byte* data, bool is_bf16, std::int64_t at) {
  hwy::Prefetch(data + static_cast<std::size_t>(at) * (is_bf16 ? sizeof(std::uint16_t) : sizeof(float)));
}

// The exponent of a sum of nothing.
constexpr float kNothing = std::numeric_limits<float>::lowest();

// What two terms weigh, relative to the heavier, given by how much the first one's exponent is the larger.
struct Shares {
  V first, second;

  HWY_INLINE explicit Shares(V difference) {
    const D d;
    const auto e = weft::HWY_NAMESPACE::exp2_of_negative(d, hn::Mul(hn::Abs(difference), hn::Set(d, -1.44269504F)));
    const auto one = hn::Set(d, 1.0F);
    const auto first_leads = hn::Gt(difference, hn::Zero(d));
    first = hn::IfThenElse(first_leads, one, e);
    second = hn::IfThenElse(first_leads, e, one);
  }
};

// x − k, which may nearly cancel with an age·w: with what is lost in rounding it.
struct Distance {
  V rounded, lost;

  HWY_INLINE Distance(V x, V k) {
    const D d;
    rounded = hn::Sub(x, k);
    const auto minus_k = hn::Sub(rounded, x);
    const auto exact = hn::Sub(hn::Sub(x, hn::Sub(rounded, minus_k)), hn::Add(k, minus_k));
    const auto is_finite = hn::Lt(hn::Abs(rounded), hn::Set(d, std::numeric_limits<float>::infinity()));
    lost = hn::IfThenElseZero(is_finite, exact);
  }
  // x − age·w − k
  HWY_INLINE V aged(V age, V w) const { return hn::Add(hn::NegMulAdd(age, w, rounded), lost); }
};

// (older_n + n, older_d + d)·e^{x − age·w}: tokens and a state, x being the exponent of the heaviest.
struct Sum {
  V n, d, older_n, older_d, x, age;

  // Adds (n, d)·e^k.
  HWY_INLINE void take(V more_n, V more_d, V k, V w, const Distance& distance) {
    const auto difference = distance.aged(age, w);
    const Shares shares(difference);
    n = hn::MulAdd(n, shares.first, hn::Mul(more_n, shares.second));
    d = hn::MulAdd(d, shares.first, hn::Mul(more_d, shares.second));
    older_n = hn::Mul(older_n, shares.first);
    older_d = hn::Mul(older_d, shares.first);
    const auto leads = hn::Gt(difference, hn::Zero(D()));
    x = hn::IfThenElse(leads, x, k);
    age = hn::IfThenElseZero(leads, age);
  }

  // Makes what is new old. What is lost in adding goes on as new.
  HWY_INLINE void end_run() {
    const auto sum_n = hn::Add(older_n, n), sum_d = hn::Add(older_d, d);
    n = hn::Sub(n, hn::Sub(sum_n, older_n));
    d = hn::Sub(d, hn::Sub(sum_d, older_d));
    older_n = sum_n;
    older_d = sum_d;
  }
};

HWY_INLINE Sum empty_sum() {
  const auto zero = hn::Zero(D());
  return {zero, zero, zero, zero, hn::Set(D(), kNothing), zero};
}

// Rows of aa, bb and pp, so far apart.
HWY_INLINE Sum load_state(const float* rows, std::int64_t stride, std::size_t count) {
  const D d;
  Sum sum = empty_sum();
  sum.older_n = weft::HWY_NAMESPACE::load_lanes(d, rows, count);
  sum.older_d = weft::HWY_NAMESPACE::load_lanes(d, rows + stride, count);
  const auto is_empty = hn::And(hn::Eq(sum.older_n, hn::Zero(d)), hn::Eq(sum.older_d, hn::Zero(d)));
  const auto exponent = weft::HWY_NAMESPACE::load_lanes(d, rows + 2 * stride, count);
  sum.x = hn::IfThenElse(is_empty, sum.x, exponent);
  return sum;
}

// e^x − 1 for x in [−80, 80]; for small x, which matter, to a relative error of 1e-6.
HWY_INLINE V exp_minus_one(V x) {
  const D d;
  const auto one = hn::Set(d, 1.0F);
  const auto small = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 0.5F), x);
  const auto large = hn::Sub(weft::HWY_NAMESPACE::exp_in_range(d, x), one);
  return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, 1e-3F)), small, large);
}

// x − age·w is rounded to f32, and the parts are scaled by what that loses. All that comes to what was there before,
// new tokens and this, is added in one go: from step to step it is likely the same fraction of a unit in the last
// place, and would be rounded the same way.
HWY_INLINE void store_state(const Sum& sum, V w, float* rows, std::int64_t stride, std::size_t count) {
  const D d;
  const hn::CappedTag<double, kBlock / 2> d64;
  const hn::Rebind<float, decltype(d64)> half;
  alignas(64) float x[kBlock], age[kBlock], decay[kBlock], exponent[kBlock], lost[kBlock];
  hn::Store(sum.x, d, x);
  hn::Store(sum.age, d, age);
  hn::Store(w, d, decay);
  const auto wide = [&](const float* from) HWY_ATTR { return hn::PromoteTo(d64, hn::LoadU(half, from)); };
  for (std::size_t i = 0; i < hn::Lanes(d); i += hn::Lanes(d64)) {
    const auto exact = hn::NegMulAdd(wide(age + i), wide(decay + i), wide(x + i));
    const auto rounded = hn::DemoteTo(half, exact);
    hn::StoreU(rounded, half, exponent + i);
    hn::StoreU(hn::DemoteTo(half, hn::Sub(exact, hn::PromoteTo(d64, rounded))), half, lost + i);
  }
  const auto limit = hn::Set(d, 80.0F);  // reached by keys beyond 10^9 only
  const auto more = exp_minus_one(hn::Max(hn::Neg(limit), hn::Min(hn::Load(d, lost), limit)));
  const auto scaled = [&](V older, V newer)
                          HWY_ATTR { return hn::Add(older, hn::MulAdd(hn::Add(older, newer), more, newer)); };
  const auto is_empty = hn::Eq(sum.x, hn::Set(d, kNothing));
  const auto pp = hn::IfThenElse(is_empty, hn::Set(d, CausalWkv::kEmptyExponent), hn::Load(d, exponent));
  weft::HWY_NAMESPACE::store_lanes(scaled(sum.older_n, sum.n), d, rows, count);
  weft::HWY_NAMESPACE::store_lanes(scaled(sum.older_d, sum.d), d, rows + stride, count);
  weft::HWY_NAMESPACE::store_lanes(pp, d, rows + 2 * stride, count);
}

// A vector's worth of a column's channels.
struct Lanes {
  const Scan& scan;
  std::int64_t column, first;  // its channel in the block

  std::int64_t entry() const { return column / scan.blocks(); }
  std::int64_t channel() const { return column % scan.blocks() * kBlock + first; }
  // At least 1; more than a vector's where there are more.
  std::size_t count() const { return static_cast<std::size_t>(scan.channels - channel()); }
  std::int64_t state() const { return entry() * 3 * scan.channels + channel(); }
  HWY_INLINE V of_channels(const float* from) const {
    return weft::HWY_NAMESPACE::load_lanes(D(), from + channel(), count());
  }
};

template <class Body>
HWY_INLINE void for_each_lanes(const Scan& scan, std::int64_t column, Body body) {
  const std::int64_t width = std::min(kBlock, scan.channels - column % scan.blocks() * kBlock);
  for (std::int64_t i = 0; i < width; i += static_cast<std::int64_t>(hn::Lanes(D()))) body(Lanes{scan, column, i});
}

// Takes the tokens [begin, end) into the sum; kEmit: writes y of each before that.
template <bool kEmit>
HWY_INLINE void pass(const Lanes& lanes, std::int64_t begin, std::int64_t end, V w, Sum& sum) {
  const Scan scan = lanes.scan;  // a copy: the compiler would read it again after every store
  const std::int64_t tokens = scan.segments.tokens();
  const std::size_t count = lanes.count();
  const auto one = hn::Set(D(), 1.0F);
  [[maybe_unused]] const auto u = lanes.of_channels(scan.u);
  const std::int64_t origin = lanes.entry() * tokens * scan.channels + lanes.channel();
  for (std::int64_t next = begin; next < end; sum.end_run()) {
    const std::int64_t stop = std::min(end, next + kRun);
    for (; next < stop; ++next) {
      const std::int64_t at = origin + next * scan.channels;
      const std::int64_t ahead = origin + std::min(next + kAhead, tokens - 1) * scan.channels;
      prefetch(scan.k, scan.k_is_bf16, ahead);
      prefetch(scan.v, scan.v_is_bf16, ahead);
      const auto k = load_row(scan.k, scan.k_is_bf16, at, count);
      const auto v = load_row(scan.v, scan.v_is_bf16, at, count);
      const Distance distance(sum.x, k);
      if constexpr (kEmit) {
        const Shares shares(hn::Sub(distance.aged(sum.age, w), u));
        const auto n = hn::MulAdd(shares.first, hn::Add(sum.older_n, sum.n), hn::Mul(shares.second, v));
        const auto d = hn::MulAdd(shares.first, hn::Add(sum.older_d, sum.d), shares.second);
        store_row(hn::Div(n, d), scan.y, scan.y_is_bf16, at, count);
      }
      sum.age = hn::Add(sum.age, one);
      sum.take(v, one, k, w, distance);
    }
  }
}

void scan_column(const Scan& scan, std::int64_t column) {
  for_each_lanes(scan, column, [&](const Lanes& lanes) HWY_ATTR {
    const auto w = lanes.of_channels(scan.w);
    const float* from = scan.state + lanes.state();
    float* const to = scan.next + lanes.state();
    for (std::int64_t i = 0; i < scan.segments.count(); ++i, from = to) {
      Sum sum = load_state(from, scan.channels, lanes.count());
      pass<true>(lanes, scan.segments.begin(i), scan.segments.end(i), w, sum);
      store_state(sum, w, to, scan.channels, lanes.count());
    }
  });
}

void sum_segment(const Scan& scan, std::int64_t column, std::int64_t segment) {
  for_each_lanes(scan, column, [&](const Lanes& lanes) HWY_ATTR {
    const auto w = lanes.of_channels(scan.w);
    Sum sum = empty_sum();
    pass<false>(lanes, scan.segments.begin(segment), scan.segments.end(segment), w, sum);
    store_state(sum, w, scan.record(column, segment + 1) + lanes.first, kBlock, kBlock);
  });
}

void carry_column(const Scan& scan, std::int64_t column) {
  for_each_lanes(scan, column, [&](const Lanes& lanes) HWY_ATTR {
    const auto w = lanes.of_channels(scan.w);
    Sum sum = load_state(scan.state + lanes.state(), scan.channels, lanes.count());
    for (std::int64_t i = 0; i < scan.segments.count(); ++i) {
      float* const record = scan.record(column, i) + lanes.first;
      if (i > 0) {
        const Sum own = load_state(record, kBlock, kBlock);
        const auto tokens = static_cast<float>(scan.segments.end(i - 1) - scan.segments.begin(i - 1));
        sum.age = hn::Set(D(), tokens);
        sum.take(own.older_n, own.older_d, own.x, w, Distance(sum.x, own.x));
      }
      store_state(sum, w, record, kBlock, kBlock);
      sum = load_state(record, kBlock, kBlock);
    }
  });
}

void emit_segment(const Scan& scan, std::int64_t column, std::int64_t segment) {
  for_each_lanes(scan, column, [&](const Lanes& lanes) HWY_ATTR {
    const auto w = lanes.of_channels(scan.w);
    Sum sum = load_state(scan.record(column, segment) + lanes.first, kBlock, kBlock);
    pass<true>(lanes, scan.segments.begin(segment), scan.segments.end(segment), w, sum);
    if (segment + 1 < scan.segments.count()) return;
    store_state(sum, w, scan.next + lanes.state(), scan.channels, lanes.count());
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace weft::causal_wkv_scan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cstring>

namespace weft {
namespace causal_wkv_scan {
namespace {

HWY_EXPORT(scan_column);
HWY_EXPORT(sum_segment);
HWY_EXPORT(carry_column);
HWY_EXPORT(emit_segment);

// Elements that a thread takes at once: some ten microseconds' worth.
constexpr std::int64_t kGrain = 16 * 1024;

class CausalWkvKernel final : public Kernel {
 public:
  CausalWkvKernel(const Shape& shape, int threads)
      : state_elements_(shape[0] * 3 * shape[2]),
        channels_(shape[2]),
        columns_(shape[0] * ((channels_ + kBlock - 1) / kBlock)),
        segments_(shape[1], columns_, threads) {
    // Left to itself, each call that the first run prepares would look for the instruction set anew.
    if (!hwy::GetChosenTarget().IsInitialized()) hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }

  std::string_view name() const override { return "hwy:causal_wkv"; }
  std::size_t scratch_bytes() const override {
    if (!segments_.is_shared()) return 0;
    return static_cast<std::size_t>(columns_ * segments_.count() * 3 * kBlock) * sizeof(float);
  }
  bool may_overwrite(int i) const override {
    return (i == 0 && k_is_bf16_ == y_is_bf16_) || (i == 1 && v_is_bf16_ == y_is_bf16_);
  }
  bool reads_bf16(int i) const override { return i == 0 || i == 1; }
  void give_bf16(int i) override { (i == 0 ? k_is_bf16_ : v_is_bf16_) = true; }
  bool encode_output(DType encoding) override { return y_is_bf16_ = encoding == DType::kBF16; }

  void run(const KernelArgs& args) const noexcept override {
    if (segments_.tokens() == 0) {
      std::copy_n(args.input(4), state_elements_, args.output(1));
      return;
    }
    const Scan scan{.k = args.in[0],
                    .v = args.in[1],
                    .w = args.input(2),
                    .u = args.input(3),
                    .state = args.input(4),
                    .y = args.out[0],
                    .next = args.output(1),
                    .k_is_bf16 = k_is_bf16_,
                    .v_is_bf16 = v_is_bf16_,
                    .y_is_bf16 = y_is_bf16_,
                    .channels = channels_,
                    .segments = segments_,
                    .records = reinterpret_cast<float*>(args.scratch)};
    const auto for_each = [&](std::int64_t count, std::int64_t tokens, auto body) {
      args.workers.parallel_for(count, std::max<std::int64_t>(1, kGrain / (tokens * kBlock)),
                                [&](std::int64_t begin, std::int64_t end) {
                                  for (; begin < end; ++begin) body(begin);
                                });
    };
    if (!segments_.is_shared()) {
      const auto column = HWY_DYNAMIC_DISPATCH(scan_column);
      return for_each(columns_, segments_.tokens(), [&](std::int64_t i) { column(scan, i); });
    }
    const auto sum = HWY_DYNAMIC_DISPATCH(sum_segment);
    const auto carry = HWY_DYNAMIC_DISPATCH(carry_column);
    const auto emit = HWY_DYNAMIC_DISPATCH(emit_segment);
    const std::int64_t count = segments_.count();
    for_each(columns_ * (count - 1), segments_.longest(),
             [&](std::int64_t i) { sum(scan, i / (count - 1), i % (count - 1)); });
    for_each(columns_, count, [&](std::int64_t i) { carry(scan, i); });
    for_each(columns_ * count, segments_.longest(), [&](std::int64_t i) { emit(scan, i / count, i % count); });
  }

 private:
  std::int64_t state_elements_, channels_, columns_;
  Segments segments_;
  bool k_is_bf16_ = false, v_is_bf16_ = false, y_is_bf16_ = false;
};

}  // namespace
}  // namespace causal_wkv_scan

std::unique_ptr<Kernel> make_kernel(const CausalWkv&, const KernelRequest& request) {
  return std::make_unique<causal_wkv_scan::CausalWkvKernel>(request.in[0].shape, request.threads);
}

}  // namespace weft

#endif  // HWY_ONCE
