// Keys and values of a block of channels as what is summed up: e^k·v and e^k. Compiled once per SIMD target: include it
// inside a foreach_target file, after highway.h.
#if defined(WEFT_AFT_WEIGH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_AFT_WEIGH_INL_H_
#undef WEFT_AFT_WEIGH_INL_H_
#else
#define WEFT_AFT_WEIGH_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>

#include "kernel/simd.h"
#include "ops/aft/aft_form.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {

/// e^x for x ≤ 0, 0 below −87; what is larger gives 1. A NaN stays one.
template <class D, class V>
HWY_INLINE V exp_of_weight(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V lowest = hn::Set(d, -87.0F);
  const V weight = exp_in_range(d, hn::Min(hn::Max(x, lowest), hn::Zero(d)));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenZeroElse(hn::Lt(x, lowest), weight));
}

/// Of one batch entry the `block` channels (in whole vectors of any size) from `first` on, zeros beyond the last:
/// to [T, e^{k − m}·v and e^{k − m} for each], m the largest key of a channel, and spread [block], the largest less the
/// smallest one.
inline void weigh(const AftForm& f, const float* k, const float* v, std::int64_t first, std::int64_t block, float* to,
                  float* spread, float* largest) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t there = std::min(block, f.channels - first);
  for (std::int64_t t = 0; t < f.tokens; ++t) {
    float* const values = to + t * 2 * block;
    float* const keys = values + block;
    std::copy_n(v + t * f.channels + first, there, values);
    std::fill(values + there, values + block, 0.0F);
    if (f.keys == f.channels) {
      std::copy_n(k + t * f.keys + first, there, keys);
    } else {
      for (std::int64_t c = 0; c < there; ++c) keys[c] = k[t * f.keys + f.key_of(first + c)];
    }
    std::fill(keys + there, keys + block, 0.0F);
  }
  float* const smallest = spread;
  std::copy_n(to + block, block, largest);
  std::copy_n(to + block, block, smallest);
  for (std::int64_t t = 1; t < f.tokens; ++t) {
    const float* const keys = to + t * 2 * block + block;
    for (std::int64_t c = 0; c < block; c += lanes) {
      const auto key = hn::LoadU(d, keys + c);
      hn::StoreU(hn::Max(hn::LoadU(d, largest + c), key), d, largest + c);
      hn::StoreU(hn::Min(hn::LoadU(d, smallest + c), key), d, smallest + c);
    }
  }
  for (std::int64_t c = 0; c < block; c += lanes) {
    hn::StoreU(hn::Sub(hn::LoadU(d, largest + c), hn::LoadU(d, smallest + c)), d, spread + c);
  }
  for (std::int64_t t = 0; t < f.tokens; ++t) {
    float* const values = to + t * 2 * block;
    for (std::int64_t c = 0; c < block; c += lanes) {
      const auto key = hn::LoadU(d, values + block + c);
      const auto weight = exp_of_weight(d, hn::Sub(key, hn::LoadU(d, largest + c)));
      hn::StoreU(weight, d, values + block + c);
      hn::StoreU(hn::Mul(weight, hn::LoadU(d, values + c)), d, values + c);
    }
  }
}

/// A sum of many numbers in f32 that keeps what rounding takes from it.
template <class V>
struct CarefulSum {
  V sum, lost;

  HWY_INLINE void add(V x) {
    namespace hn = hwy::HWY_NAMESPACE;
    const V next = hn::Add(sum, x);
    const V added = hn::Sub(next, sum);
    lost = hn::Add(lost, hn::Add(hn::Sub(sum, hn::Sub(next, added)), hn::Sub(x, added)));
    sum = next;
  }
  HWY_INLINE V total() const { return hwy::HWY_NAMESPACE::Add(sum, lost); }
};

/// y = Σ e^k·v / Σ e^k for the first `there` channels of a block.
inline void divide(const float* sums, std::int64_t block, std::int64_t there, float* y) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t c = 0;
  for (; c + lanes <= there; c += lanes) {
    hn::StoreU(hn::Div(hn::LoadU(d, sums + c), hn::LoadU(d, sums + block + c)), d, y + c);
  }
  for (; c < there; ++c) y[c] = sums[c] / sums[block + c];
}

}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
