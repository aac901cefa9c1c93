// The gradient of the causal WKV on the CPU.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/causal_wkv/causal_wkv_grad_cpu.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target first.
#include <algorithm>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernel/log_sum-inl.h"
#include "kernel/simd.h"
#include "ops/causal_wkv/causal_wkv_grad.h"

#ifndef WEFT_CAUSAL_WKV_GRAD_JOB_
#define WEFT_CAUSAL_WKV_GRAD_JOB_
namespace weft::causal_wkv_grad {

/// Channels of a block: a cache line of f32.
constexpr std::int64_t kBlock = 16;
/// Tokens of a segment: what is kept of them, six f64 for each channel of a vector, fits the first-level cache.
constexpr std::int64_t kSegment = 64;
/// Rows from one that is worked on to the one that is fetched meanwhile.
constexpr std::int64_t kAhead = 16;
/// f64 of a sum: three rows of a vector of at most eight.
constexpr std::int64_t kSum = 24;

/// Of gw and gu what a column gives.
struct Partial {
  double w[kBlock], u[kBlock];
};

struct Job {
  const Shape& shape;
  const CausalWkvBackwardInput<float>& in;
  const CausalWkvGradients<float>& out;
  Partial* partials;  // [B,blocks]

  std::int64_t tokens() const { return shape[1]; }
  std::int64_t channels() const { return shape[2]; }
  std::int64_t blocks() const { return (channels() + kBlock - 1) / kBlock; }
  std::int64_t segments() const { return (tokens() + kSegment - 1) / kSegment; }
};

/// f64 of a thread's memory: a segment's sums and gradients, and the sums at the borders.
inline std::int64_t buffer_size(const Job& job) { return (2 * kSegment + job.segments()) * kSum; }

}  // namespace weft::causal_wkv_grad
#endif

HWY_BEFORE_NAMESPACE();
namespace weft::causal_wkv_grad {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
namespace wn = weft::HWY_NAMESPACE;
using D = wn::DLog;
using V = wn::VLog;
using wn::LogSum;

// As many of a column's channels as a vector holds.
class Lanes {
 public:
  Lanes(const Job& job, std::int64_t entry, std::int64_t channel, double* buffer)
      : k_(job.in.k.data() + entry * job.tokens() * job.channels() + channel),
        v_(k_ - job.in.k.data() + job.in.v.data()),
        gy_(k_ - job.in.k.data() + job.in.gy.data()),
        state_(job.in.state.data() + entry * 3 * job.channels() + channel),
        gk_(k_ - job.in.k.data() + job.out.k.data()),
        gv_(k_ - job.in.k.data() + job.out.v.data()),
        gstate_(state_ - job.in.state.data() + job.out.state.data()),
        tokens_(job.tokens()),
        stride_(job.channels()),
        count_(static_cast<std::size_t>(job.channels() - channel)),
        minus_w_(hn::Neg(load(job.in.w.data() + channel))),
        u_(load(job.in.u.data() + channel)),
        met_(buffer),
        gradients_(met_ + kSegment * kSum),
        borders_(gradients_ + kSegment * kSum) {}

  HWY_INLINE void run(double* gw, double* gu) {
    const std::int64_t last = (tokens_ - 1) / kSegment;
    LogSum sum = state();
    for (std::int64_t i = 0; i < last; ++i) {
      save(sum, borders_ + i * kSum);
      sum = passed(sum, i * kSegment);
    }
    save(sum, borders_ + last * kSum);
    LogSum behind = wn::empty_sum();
    gw_ = gu_ = hn::Zero(D());
    for (std::int64_t i = last; i >= 0; --i) {
      note(i * kSegment, saved(borders_ + i * kSum));
      behind = results(i * kSegment, behind);
    }
    of_state(behind);
    hn::StoreU(gw_, D(), gw);
    hn::StoreU(gu_, D(), gu);
  }

 private:
  HWY_INLINE V load(const float* from) const {
    return hn::PromoteTo(D(), wn::load_lanes(hn::Rebind<float, D>(), from, count_));
  }
  HWY_INLINE void store(V x, float* to) const {
    const hn::Rebind<float, D> half;
    wn::store_lanes(hn::DemoteTo(half, x), half, to, count_);
  }
  static HWY_INLINE LogSum saved(const double* from) { return wn::load_sum(from, kSum / 3); }
  static HWY_INLINE void save(const LogSum& sum, double* to) { wn::store_sum(sum, to, kSum / 3); }

  HWY_INLINE LogSum token(std::int64_t t) const {
    return {load(v_ + t * stride_), hn::Set(D(), 1.0), load(k_ + t * stride_)};
  }
  HWY_INLINE auto state_is_empty(V aa, V bb) const {
    return hn::And(hn::Eq(aa, hn::Zero(D())), hn::Eq(bb, hn::Zero(D())));
  }
  HWY_INLINE LogSum state() const {
    const V aa = load(state_), bb = load(state_ + stride_), pp = load(state_ + 2 * stride_);
    return {aa, bb, hn::IfThenElse(state_is_empty(aa, bb), hn::Set(D(), wn::kEmptyExponent), pp)};
  }
  std::int64_t end(std::int64_t begin) const { return std::min(begin + kSegment, tokens_); }

  // The sums after a segment.
  HWY_NOINLINE LogSum passed(LogSum sum, std::int64_t begin) const {
    for (std::int64_t t = begin; t < end(begin); ++t) {
      const std::int64_t ahead = std::min(t + kAhead, tokens_ - 1) * stride_;
      hwy::Prefetch(k_ + ahead);
      hwy::Prefetch(v_ + ahead);
      sum = sum.scaled(minus_w_) + token(t);
    }
    return sum;
  }

  // Of a segment's tokens what each meets, and (g, h).
  HWY_NOINLINE void note(std::int64_t begin, LogSum sum) const {
    for (std::int64_t t = begin; t < end(begin); ++t) {
      const LogSum own = token(t), all = sum + own.scaled(u_);
      const V g = hn::Div(load(gy_ + t * stride_), all.d);
      save(sum, met_ + (t - begin) * kSum);
      save({g, hn::Neg(hn::Mul(g, hn::Div(all.n, all.d))), hn::Neg(all.x)}, gradients_ + (t - begin) * kSum);
      sum = sum.scaled(minus_w_) + own;
    }
  }

  // Their gradients, and (A, B) of the token before them, from that of their last.
  HWY_NOINLINE LogSum results(std::int64_t begin, LogSum behind) {
    for (std::int64_t t = end(begin) - 1; t >= begin; --t) {
      const LogSum gradient = saved(gradients_ + (t - begin) * kSum);
      const V k = load(k_ + t * stride_), v = load(v_ + t * stride_);
      gw_ = hn::Sub(gw_, wn::product(saved(met_ + (t - begin) * kSum), behind, minus_w_));
      const V own = wn::exp_or_nan(hn::Add(hn::Add(k, u_), gradient.x));
      const V later = wn::exp_or_nan(hn::Add(k, behind.x));
      const V own_v = hn::Mul(own, gradient.n), own_k = hn::MulAdd(own_v, v, hn::Mul(own, gradient.d));
      const V later_v = hn::Mul(later, behind.n);
      gu_ = hn::Add(gu_, own_k);
      store(hn::Add(own_v, later_v), gv_ + t * stride_);
      store(hn::Add(own_k, hn::MulAdd(later_v, v, hn::Mul(later, behind.d))), gk_ + t * stride_);
      behind = behind.scaled(minus_w_) + gradient;
    }
    return behind;
  }

  HWY_INLINE void of_state(const LogSum& behind) const {
    const V aa = load(state_), bb = load(state_ + stride_), pp = load(state_ + 2 * stride_);
    const auto is_empty = state_is_empty(aa, bb);
    const V exponent = hn::IfThenElse(is_empty, hn::Set(D(), wn::kEmptyExponent), hn::Add(pp, behind.x));
    const V weight = wn::exp_or_nan(exponent);
    const V by_aa = hn::Mul(weight, behind.n), by_bb = hn::Mul(weight, behind.d);
    store(by_aa, gstate_);
    store(by_bb, gstate_ + stride_);
    store(hn::MulAdd(aa, by_aa, hn::Mul(bb, by_bb)), gstate_ + 2 * stride_);
  }

  const float *k_, *v_, *gy_, *state_;
  float *gk_, *gv_, *gstate_;
  std::int64_t tokens_, stride_;
  std::size_t count_;
  V minus_w_, u_;
  double *met_, *gradients_, *borders_;
  V gw_, gu_;
};

void grad_column(const Job& job, std::int64_t column, double* buffer) {
  const std::int64_t entry = column / job.blocks(), first = column % job.blocks() * kBlock;
  Partial& partial = job.partials[column];
  for (std::int64_t i = 0; i < std::min(kBlock, job.channels() - first);
       i += static_cast<std::int64_t>(hn::Lanes(D()))) {
    Lanes(job, entry, first + i, buffer).run(partial.w + i, partial.u + i);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace weft::causal_wkv_grad
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <vector>

#include "core/format.h"

namespace weft {
namespace causal_wkv_grad {
namespace {

HWY_EXPORT(grad_column);

// Elements that a thread takes at once: some ten microseconds' worth.
constexpr std::int64_t kGrain = 2 * 1024;

void check(const Shape& shape, const CausalWkvBackwardInput<float>& in, const CausalWkvGradients<float>& out) {
  require<ShapeError>(shape.rank() == 3, "causal_wkv_backward", "k must be [B,T,C], got {}", shape);
  const auto has = [&](std::string_view name, std::size_t got, std::int64_t expected, std::string_view axes) {
    require<ShapeError>(got == static_cast<std::size_t>(expected), "causal_wkv_backward",
                        "{}: expected {} elements, {} of {}, got {}", name, expected, axes, shape, got);
  };
  const auto whole = [&](std::string_view name, std::size_t got) { has(name, got, shape.elements(), "B·T·C"); };
  const auto of_channels = [&](std::string_view name, std::size_t got) { has(name, got, shape[2], "C"); };
  const auto of_state = [&](std::string_view name, std::size_t got) {
    has(name, got, shape[0] * 3 * shape[2], "B·3·C");
  };
  whole("k", in.k.size()), whole("v", in.v.size()), whole("gy", in.gy.size());
  whole("gk", out.k.size()), whole("gv", out.v.size());
  of_channels("w", in.w.size()), of_channels("u", in.u.size());
  of_channels("gw", out.w.size()), of_channels("gu", out.u.size());
  of_state("state", in.state.size()), of_state("gstate", out.state.size());
}

}  // namespace
}  // namespace causal_wkv_grad

void causal_wkv_backward(const Shape& shape, const CausalWkvBackwardInput<float>& in,
                         const CausalWkvGradients<float>& out, const Workers& workers) {
  using namespace causal_wkv_grad;
  check(shape, in, out);
  for (const std::span<float> sums : {out.w, out.u, out.state}) std::ranges::fill(sums, 0.0F);
  if (shape.elements() == 0) return;
  Job job{.shape = shape, .in = in, .out = out, .partials = nullptr};
  const std::int64_t columns = shape[0] * job.blocks();
  std::vector<Partial> partials(static_cast<std::size_t>(columns));
  job.partials = partials.data();
  Tensor buffers(DType::kF64, {workers.count() * buffer_size(job)});
  double* const buffer = buffers.mutable_data<double>().data();
  // Left to itself, each call that the first run prepares would look for the instruction set anew.
  if (!hwy::GetChosenTarget().IsInitialized()) hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  const auto column = HWY_DYNAMIC_DISPATCH(grad_column);
  workers.parallel_for(columns, std::max<std::int64_t>(1, kGrain / (shape[1] * kBlock)),
                       [&](std::int64_t begin, std::int64_t end) {
                         double* const own = buffer + workers.index() * buffer_size(job);
                         for (; begin < end; ++begin) column(job, begin, own);
                       });
  for (std::int64_t channel = 0; channel < shape[2]; ++channel) {
    double w = 0, u = 0;
    for (std::int64_t entry = 0; entry < shape[0]; ++entry) {
      const Partial& partial = partials[static_cast<std::size_t>(entry * job.blocks() + channel / kBlock)];
      w += partial.w[channel % kBlock];
      u += partial.u[channel % kBlock];
    }
    out.w[static_cast<std::size_t>(channel)] = static_cast<float>(w);
    out.u[static_cast<std::size_t>(channel)] = static_cast<float>(u);
  }
}

}  // namespace weft

#endif  // HWY_ONCE
