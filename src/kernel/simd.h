// Highway helpers that several kernels share. Compiled once per SIMD target: include it inside a foreach_target file,
// after highway.h.
#if defined(WEFT_KERNEL_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_KERNEL_SIMD_H_
#undef WEFT_KERNEL_SIMD_H_
#else
#define WEFT_KERNEL_SIMD_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {

/// The first `count` < Lanes(d) elements at `from`, zero beyond. Reads nothing else.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> load_n(D d, const float* from, std::size_t count) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN float lanes[hn::MaxLanes(D())] = {};
  std::copy_n(from, count, lanes);
  return hn::Load(d, lanes);
#else
  return hn::MaskedLoad(hn::FirstN(d, count), d, from);
#endif
}

/// Writes the first `count` < Lanes(d) lanes to `to` and nothing else.
template <class D>
HWY_INLINE void store_n(hwy::HWY_NAMESPACE::Vec<D> values, D d, float* to, std::size_t count) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  hn::Store(values, d, lanes);
  std::copy_n(lanes, count, to);
#else
  hn::BlendedStore(values, hn::FirstN(d, count), d, to);
#endif
}

}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
