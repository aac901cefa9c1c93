// Small transpositions for SIMD kernels. Compiled once per SIMD target: include it inside a foreach_target file, after
// highway.h.
#if defined(WEFT_KERNEL_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_KERNEL_TRANSPOSE_INL_H_
#undef WEFT_KERNEL_TRANSPOSE_INL_H_
#else
#define WEFT_KERNEL_TRANSPOSE_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// y[c][r] = x[r][c] for a block of 4 × 4.
HWY_INLINE void transpose_4x4(const float* x, std::int64_t x_stride, float* y, std::int64_t y_stride) {
#if HWY_TARGET == HWY_SCALAR
  for (std::int64_t c = 0; c < 4; ++c) {
    for (std::int64_t r = 0; r < 4; ++r) y[c * y_stride + r] = x[r * x_stride + c];
  }
#else
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> pairs;
  const auto row0 = hn::LoadU(d, x);
  const auto row1 = hn::LoadU(d, x + x_stride);
  const auto row2 = hn::LoadU(d, x + 2 * x_stride);
  const auto row3 = hn::LoadU(d, x + 3 * x_stride);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, row0, row1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, row2, row3));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, row0, row1));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, row2, row3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, y);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, y + y_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, y + 2 * y_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, y + 3 * y_stride);
#endif
}

/// y[c][r] = x[r][c]; x is [rows,columns] with rows `x_stride` apart, y is [columns,rows] with rows `y_stride` apart.
HWY_INLINE void transpose(const float* x, std::int64_t x_stride, float* y, std::int64_t y_stride, std::int64_t rows,
                          std::int64_t columns) {
  for (std::int64_t c = 0; c < columns; c += 4) {
    for (std::int64_t r = 0; r < rows; r += 4) {
      if (r + 4 <= rows && c + 4 <= columns) {
        transpose_4x4(x + r * x_stride + c, x_stride, y + c * y_stride + r, y_stride);
        continue;
      }
      for (std::int64_t j = c; j < std::min(c + 4, columns); ++j) {
        for (std::int64_t i = r; i < std::min(r + 4, rows); ++i) y[j * y_stride + i] = x[i * x_stride + j];
      }
    }
  }
}

}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
