// What the files with SIMD kernels for tiles share. Compiled once per SIMD target: include it inside a foreach_target
// file, after highway.h.
#if defined(WEFT_TORCH_TILE_KERNELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_TORCH_TILE_KERNELS_INL_H_
#undef WEFT_TORCH_TILE_KERNELS_INL_H_
#else
#define WEFT_TORCH_TILE_KERNELS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "kernel/simd.h"
#include "torch/tile_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace weft::torch_engine::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using weft::HWY_NAMESPACE::load_n;
using weft::HWY_NAMESPACE::store_bf16;
using weft::HWY_NAMESPACE::store_bf16_n;
using weft::HWY_NAMESPACE::store_n;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

HWY_INLINE V set(float value) { return hn::Set(D(), value); }

// Whole vectors of a row, from element i on.
struct Whole {
  std::size_t i;
  HWY_INLINE V operator()(const float* from) const { return hn::LoadU(D(), from + i); }
  HWY_INLINE void operator()(V v, float* to) const { hn::StoreU(v, D(), to + i); }
  HWY_INLINE void operator()(V v, std::uint16_t* to) const { store_bf16(v, D(), to + i); }
};

// The last elements of a row, fewer than a vector has.
struct Rest {
  std::size_t i, count;
  HWY_INLINE V operator()(const float* from) const { return load_n(D(), from + i, count); }
  HWY_INLINE void operator()(V v, float* to) const { store_n(v, D(), to + i, count); }
  HWY_INLINE void operator()(V v, std::uint16_t* to) const { store_bf16_n(v, D(), to + i, count); }
};

// Calls f(load, store) for each vector of `count` elements: load(from) and store(v, to) take pointers to where the row
// begins; `to` may be bf16.
template <class F>
HWY_INLINE void for_each_vector(std::size_t count, F&& f) {
  const std::size_t lanes = hn::Lanes(D());
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) f(Whole{i}, Whole{i});
  if (i < count) f(Rest{i, count - i}, Rest{i, count - i});
}

template <class Load, class Store>
HWY_INLINE void put(V value, Target to, std::size_t offset, Load&& load, Store&& store) {
  if (to.adds) value = hn::Add(value, load(to.at + offset));
  store(value, to.at + offset);
}

}  // namespace weft::torch_engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
