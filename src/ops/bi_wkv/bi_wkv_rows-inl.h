// How the sweeps of the Bi-WKV scan reach k, v and y, for one instruction set. Included once per target, as Highway
// wants it.
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernel/simd.h"
#include "ops/bi_wkv/bi_wkv_scan.h"

// clang-format off
#if defined(WEFT_BI_WKV_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_BI_WKV_ROWS_INL_H_
#undef WEFT_BI_WKV_ROWS_INL_H_
#else
#define WEFT_BI_WKV_ROWS_INL_H_
#endif
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace weft::bi_wkv_scan {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D32 = hn::CappedTag<float, kBlock>;

HWY_INLINE std::size_t element_size(bool is_bf16) { return is_bf16 ? sizeof(std::uint16_t) : sizeof(float); }

// A row of kBlock, f32 or bf16, to f32.
HWY_INLINE void widen_row(const std::byte* from, bool is_bf16, float* to) {
  const D32 d;
  for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
    hn::Store(is_bf16 ? weft::HWY_NAMESPACE::load_bf16(d, reinterpret_cast<const std::uint16_t*>(from) + i)
                      : hn::LoadU(d, reinterpret_cast<const float*>(from) + i),
              d, to + i);
  }
}

/// `width` elements from `from` on, f32 or bf16, to f32, and zeros up to kBlock.
HWY_INLINE void copy_in(const std::byte* from, bool is_bf16, std::int64_t width, float* to) {
  if (width == kBlock) return widen_row(from, is_bf16, to);
  alignas(64) std::byte padded[kBlock * sizeof(float)] = {};
  std::memcpy(padded, from, static_cast<std::size_t>(width) * element_size(is_bf16));
  widen_row(padded, is_bf16, to);
}

HWY_INLINE void copy_out(const float* from, std::byte* to, bool is_bf16, std::int64_t width) {
  const D32 d;
  alignas(64) std::uint16_t rounded[kBlock];
  auto* const bf16 = width == kBlock ? reinterpret_cast<std::uint16_t*>(to) : rounded;
  if (is_bf16) {
    for (std::size_t i = 0; i < kBlock; i += hn::Lanes(d)) {
      weft::HWY_NAMESPACE::store_bf16(hn::Load(d, from + i), d, bf16 + i);
    }
    if (width == kBlock) return;
  }
  std::memcpy(to, is_bf16 ? static_cast<const void*>(rounded) : static_cast<const void*>(from),
              static_cast<std::size_t>(width) * element_size(is_bf16));
}

template <bool kReads>
HWY_INLINE Rows<float> copy_rows(const Unit& unit, std::int64_t begin, std::int64_t end) {
  const Scan& scan = unit.scan;
  const Rows<float> rows = {unit.k_copy(), unit.v_copy(), unit.k_copy(), kBlock, end - begin};
  if constexpr (kReads) {
    const auto copy = [&](const std::byte* data, bool is_bf16, float* to) HWY_ATTR {
      const std::size_t size = element_size(is_bf16);
      const std::byte* from = data + static_cast<std::size_t>(unit.element(begin)) * size;
      for (std::int64_t t = 0; t < rows.tokens; ++t, to += kBlock) {
        copy_in(from, is_bf16, unit.width(), to);
        from += static_cast<std::size_t>(scan.channels) * size;
      }
    };
    copy(scan.k, scan.k_is_bf16, unit.k_copy());
    copy(scan.v, scan.v_is_bf16, unit.v_copy());
  }
  return rows;
}

HWY_INLINE void copy_back(const Unit& unit, const Rows<float>& rows, std::int64_t begin) {
  const Scan& scan = unit.scan;
  const std::size_t size = element_size(scan.y_is_bf16);
  std::byte* to = scan.y + static_cast<std::size_t>(unit.element(begin)) * size;
  for (std::int64_t t = 0; t < rows.tokens; ++t, to += static_cast<std::size_t>(scan.channels) * size) {
    copy_out(rows.y + t * kBlock, to, scan.y_is_bf16, unit.width());
  }
}

HWY_INLINE hn::Vec<D32> load_row(const float* from) { return hn::LoadU(D32(), from); }
HWY_INLINE hn::Vec<D32> load_row(const std::uint16_t* from) { return weft::HWY_NAMESPACE::load_bf16(D32(), from); }
HWY_INLINE void store_row(hn::Vec<D32> y, float* to) { hn::StoreU(y, D32(), to); }
HWY_INLINE void store_row(hn::Vec<D32> y, std::uint16_t* to) { weft::HWY_NAMESPACE::store_bf16(y, D32(), to); }

/// Tokens [begin, end) of the unit; kReads: k and v are wanted, not only y, which close_rows writes back. T is
/// std::uint16_t only where the unit is_bf16().
template <class T, bool kReads = true>
HWY_INLINE Rows<T> open_rows(const Unit& unit, std::int64_t begin, std::int64_t end) {
  if constexpr (!std::is_same_v<T, float>) {
    return unit.rows_in_place<T>(begin, end);
  } else {
    return unit.is_f32() ? unit.rows_in_place<T>(begin, end) : copy_rows<kReads>(unit, begin, end);
  }
}

template <class T>
HWY_INLINE void close_rows(const Unit& unit, const Rows<T>& rows, std::int64_t begin) {
  if constexpr (std::is_same_v<T, float>) {
    if (!unit.is_f32()) copy_back(unit, rows, begin);
  }
}

HWY_INLINE void save_first_key(const Unit& unit) {
  const std::size_t at = static_cast<std::size_t>(unit.element(0)) * element_size(unit.scan.k_is_bf16);
  copy_in(unit.scan.k + at, unit.scan.k_is_bf16, unit.width(), unit.first_key());
}

}  // namespace HWY_NAMESPACE
}  // namespace weft::bi_wkv_scan
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
