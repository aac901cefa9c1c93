// How SIMD kernels write rows in an encoding, vector by vector. Compiled once per SIMD target: include it inside a
// foreach_target file, after highway.h.
#if defined(WEFT_KERNEL_ENCODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_KERNEL_ENCODE_INL_H_
#undef WEFT_KERNEL_ENCODE_INL_H_
#else
#define WEFT_KERNEL_ENCODE_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "kernel/encode.h"
#include "kernel/simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The range of a row that comes vector by vector.
class Range {
  using D = hn::ScalableTag<float>;
  using V = hn::Vec<D>;

 public:
  Range() : low_(hn::Set(D(), std::numeric_limits<float>::infinity())), high_(hn::Neg(low_)), poison_(hn::Zero(D())) {}
  HWY_INLINE void add(V x) {
    low_ = hn::Min(low_, x);
    high_ = hn::Max(high_, x);
    poison_ = hn::MulAdd(x, hn::Zero(D()), poison_);
  }
  /// Of the first `count` < Lanes elements.
  HWY_INLINE void add_n(V x, std::size_t count) {
    const auto wanted = hn::FirstN(D(), count);
    low_ = hn::IfThenElse(wanted, hn::Min(low_, x), low_);
    high_ = hn::IfThenElse(wanted, hn::Max(high_, x), high_);
    poison_ = hn::MulAdd(hn::IfThenElseZero(wanted, x), hn::Zero(D()), poison_);
  }
  HWY_INLINE void add(const Range& other) {
    low_ = hn::Min(low_, other.low_);
    high_ = hn::Max(high_, other.high_);
    poison_ = hn::Add(poison_, other.poison_);
  }
  HWY_INLINE float low() const { return hn::GetLane(hn::MinOfLanes(D(), low_)); }
  HWY_INLINE float high() const { return hn::GetLane(hn::MaxOfLanes(D(), high_)); }
  HWY_INLINE bool finite() const { return hn::AllTrue(D(), hn::Eq(poison_, hn::Zero(D()))); }

 private:
  V low_, high_;
  V poison_;  // stays 0 unless something is NaN or infinite: min and max would lose a NaN
};

// Bytes of (x − low)·factor, which lies in [0, 255.5): adding 2^23 rounds to the nearest integer and leaves it in the
// lowest bits.
template <class V>
HWY_INLINE auto quantise(V x, V low, V factor) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const V shifted = hn::MulAdd(hn::Sub(x, low), factor, hn::Set(d, 0x1p23F));
  return hn::TruncateTo(hn::Rebind<std::uint8_t, decltype(d)>(), hn::BitCast(du, shifted));
}

/// A row of k elements to bytes, its range being known.
HWY_INLINE RowScale encode_row(const float* x, const Range& range, std::uint8_t* y, std::size_t k) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<std::uint8_t, decltype(d)> d8;
  // Of normal numbers, the least: its reciprocal is finite.
  constexpr float kLeastScale = std::numeric_limits<float>::min();
  const std::size_t lanes = hn::Lanes(d);
  const float least = range.low();
  const float span = range.high() - least;
  const auto low = hn::Set(d, least);
  const float scale = std::max(span * (1.0F / 255), kLeastScale);  // a NaN stays one
  const auto factor = hn::Set(d, 1 / scale);
  std::size_t i = 0;
  for (; i + lanes <= k; i += lanes) hn::StoreU(quantise(hn::LoadU(d, x + i), low, factor), d8, y + i);
  if (i < k) {
    HWY_ALIGN std::uint8_t rest[hn::MaxLanes(decltype(d)())];
    hn::Store(quantise(load_n(d, x + i, k - i), low, factor), d8, rest);
    std::copy_n(rest, k - i, y + i);
  }
  return {range.finite() ? scale : std::numeric_limits<float>::quiet_NaN(), least};
}

/// Writes rows of `columns` elements one after the other: each put() once, in any order, then end_row().
template <DType kEncoding>
class RowWriter {
  using D = hn::ScalableTag<float>;
  using V = hn::Vec<D>;

 public:
  RowWriter(const EncodedRows& to, std::size_t columns) : to_(to), columns_(columns) {}

  /// Elements i… of the row.
  HWY_INLINE void put(V x, std::size_t i) {
    store(x, i);
    if constexpr (kEncoding == DType::kI8) even_.add(x);
  }
  /// Two vectors, i… and behind: the ranges of the two do not wait for each other.
  HWY_INLINE void put(V first, V second, std::size_t i) {
    if constexpr (kEncoding == DType::kBF16) {
      store_bf16(first, second, D(), bf16() + i);
    } else {
      put(first, i);
      store(second, i + hn::Lanes(D()));
    }
    if constexpr (kEncoding == DType::kI8) odd_.add(second);
  }
  /// The first `count` < Lanes elements of x.
  HWY_INLINE void put_n(V x, std::size_t i, std::size_t count) {
    if constexpr (kEncoding == DType::kBF16) {
      store_bf16_n(x, D(), bf16() + i, count);
    } else {
      store_n(x, D(), f32() + i, count);
    }
    if constexpr (kEncoding == DType::kI8) even_.add_n(x, count);
  }
  HWY_INLINE void end_row() {
    if constexpr (kEncoding == DType::kI8) {
      even_.add(odd_);
      *to_.scales++ = encode_row(to_.scratch, even_, reinterpret_cast<std::uint8_t*>(to_.rows), columns_);
      even_ = odd_ = Range();
    }
    to_.rows += columns_ * size_of(kEncoding);
  }

 private:
  float* f32() { return kEncoding == DType::kI8 ? to_.scratch : reinterpret_cast<float*>(to_.rows); }
  std::uint16_t* bf16() { return reinterpret_cast<std::uint16_t*>(to_.rows); }
  HWY_INLINE void store(V x, std::size_t i) {
    if constexpr (kEncoding == DType::kBF16) {
      store_bf16(x, D(), bf16() + i);
    } else {
      hn::StoreU(x, D(), f32() + i);
    }
  }

  EncodedRows to_;
  std::size_t columns_;
  Range even_, odd_;  // kI8
};

/// Calls write(RowWriter) for the encoding.
template <class F>
HWY_INLINE void with_row_writer(const EncodedRows& to, std::size_t columns, F&& write) {
  if (to.encoding == DType::kI8) return write(RowWriter<DType::kI8>(to, columns));
  if (to.encoding == DType::kBF16) return write(RowWriter<DType::kBF16>(to, columns));
  write(RowWriter<DType::kF32>(to, columns));
}

}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
