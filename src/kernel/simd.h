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
#include <cstdint>

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

/// The first `count` elements at `from`, zero beyond; a vector at most.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> load_lanes(D d, const float* from, std::size_t count) {
  namespace hn = hwy::HWY_NAMESPACE;
  return count >= hn::Lanes(d) ? hn::LoadU(d, from) : load_n(d, from, count);
}
template <class D>
HWY_INLINE void store_lanes(hwy::HWY_NAMESPACE::Vec<D> x, D d, float* to, std::size_t count) {
  namespace hn = hwy::HWY_NAMESPACE;
  if (count >= hn::Lanes(d)) {
    hn::StoreU(x, d, to);
  } else {
    store_n(x, d, to, count);
  }
}

/// bf16 elements at `from` as f32.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> load_bf16(D d, const std::uint16_t* from) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(hn::Rebind<std::uint16_t, D>(), from))));
}

/// The first `count` < Lanes(d) of them, zero beyond. Reads nothing else.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> load_bf16_n(D d, const std::uint16_t* from, std::size_t count) {
  HWY_ALIGN std::uint16_t lanes[hwy::HWY_NAMESPACE::MaxLanes(D())] = {};
  std::copy_n(from, count, lanes);
  return load_bf16(d, lanes);
}

/// The bits of x, of which the upper 16 are its bf16 form, rounded to nearest even; a NaN stays one.
template <class D>
HWY_INLINE auto round_to_bf16(D /*d*/, hwy::HWY_NAMESPACE::Vec<D> x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7FFF)), odd);
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), hn::Set(du, 0x7FC00000), rounded);
}

/// In bf16.
template <class D>
HWY_INLINE void store_bf16(hwy::HWY_NAMESPACE::Vec<D> x, D d, std::uint16_t* to) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<std::uint16_t, D> d16;
  hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(round_to_bf16(d, x))), d16, to);
}

/// Two vectors, one behind the other.
template <class D>
HWY_INLINE void store_bf16(hwy::HWY_NAMESPACE::Vec<D> first, hwy::HWY_NAMESPACE::Vec<D> second, D d,
                           std::uint16_t* to) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_TARGET == HWY_SCALAR
  store_bf16(first, d, to);
  store_bf16(second, d, to + hn::Lanes(d));
#else
  const hn::Repartition<std::uint16_t, D> d16;
  const auto low = hn::BitCast(d16, round_to_bf16(d, first));
  const auto high = hn::BitCast(d16, round_to_bf16(d, second));
  hn::StoreU(hn::ConcatOdd(d16, high, low), d16, to);
#endif
}

/// The same of the first `count` < Lanes(d) lanes; writes nothing else.
template <class D>
HWY_INLINE void store_bf16_n(hwy::HWY_NAMESPACE::Vec<D> x, D d, std::uint16_t* to, std::size_t count) {
  HWY_ALIGN std::uint16_t lanes[hwy::HWY_NAMESPACE::MaxLanes(D())];
  store_bf16(x, d, lanes);
  std::copy_n(lanes, count, to);
}

/// to[c][r] = from[r][c] for [rows,columns] elements; rows of `from` and `to` are so many elements apart.
inline void transpose(const float* from, std::size_t from_step, std::size_t rows, std::size_t columns, float* to,
                      std::size_t to_step) {
  std::size_t r = 0;
#if HWY_TARGET != HWY_SCALAR
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Full128<float> d;
  const hn::RepartitionToWide<decltype(d)> pairs;
  for (; r + 4 <= rows; r += 4, from += 4 * from_step) {
    std::size_t c = 0;
    for (; c + 4 <= columns; c += 4) {
      const auto r0 = hn::LoadU(d, from + c);
      const auto r1 = hn::LoadU(d, from + from_step + c);
      const auto r2 = hn::LoadU(d, from + 2 * from_step + c);
      const auto r3 = hn::LoadU(d, from + 3 * from_step + c);
      const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
      const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
      const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
      const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
      float* const column = to + c * to_step + r;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, column);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, column + to_step);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, column + 2 * to_step);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, column + 3 * to_step);
    }
    for (; c < columns; ++c) {
      for (std::size_t i = 0; i < 4; ++i) to[c * to_step + r + i] = from[i * from_step + c];
    }
  }
#endif
  for (; r < rows; ++r, from += from_step) {
    for (std::size_t c = 0; c < columns; ++c) to[c * to_step + r] = from[c];
  }
}

/// e^x for x in [−87, 88], within 1.5 units of the last place and 1 for x = 0. There is no clamp and no special case,
/// which is what makes it more than twice as fast as Highway's Exp: beyond that range and for NaN the result is
/// arbitrary.
///
/// With n the integer next to x/ln 2 and r = x − n·ln 2, e^x = 2^n·e^r. For |r| ≤ ln 2/2 the polynomial of degree 5
/// with the smallest relative error that begins with 1 + r is off by 1.8·2^−24; rounding adds about as much.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> exp_in_range(D d, hwy::HWY_NAMESPACE::Vec<D> x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToSigned<D> di;
  // Added to a small number, 1.5·2^23 leaves its nearest integer in the lowest bits.
  const auto to_integer = hn::Set(d, 0x1.8p23F);
  const auto shifted = hn::MulAdd(x, hn::Set(d, 1.44269504F), to_integer);
  const auto n = hn::Sub(shifted, to_integer);
  // ln 2 in two parts, the first of which has few enough bits for n times it to be exact without FMA, too.
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693145752F), x);
  r = hn::NegMulAdd(n, hn::Set(d, 1.42860677e-6F), r);
  auto p = hn::MulAdd(hn::Set(d, 1.38145288e-3F), r, hn::Set(d, 8.36875049e-3F));
  p = hn::MulAdd(p, r, hn::Set(d, 4.16683913e-2F));
  p = hn::MulAdd(p, r, hn::Set(d, 0.166665204F));
  p = hn::MulAdd(p, r, hn::Set(d, 0.499999934F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
}

}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
