#include "image/resample.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "image/resample.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::int32_t kHalf = 1 << (kWeightBits - 1);

/// `Vectors` vectors of output pixels at once: each weight is broadcast once for all of them.
template <int Vectors>
HWY_INLINE void weighted_sum(const std::uint8_t* HWY_RESTRICT in, std::ptrdiff_t stride,
                             const std::int32_t* HWY_RESTRICT weights, std::int64_t count,
                             std::uint8_t* HWY_RESTRICT out) {
  const hn::ScalableTag<std::int32_t> wide;
  const hn::Rebind<std::uint8_t, decltype(wide)> narrow;
  const std::size_t lanes = hn::Lanes(wide);
  const auto pixels = [&](const std::uint8_t* at) { return hn::PromoteTo(wide, hn::LoadU(narrow, at)); };
  const auto store = [&](auto sum, std::uint8_t* at) {
    hn::StoreU(hn::DemoteTo(narrow, hn::ShiftRight<kWeightBits>(sum)), narrow, at);
  };
  auto sum0 = hn::Set(wide, kHalf);
  if constexpr (Vectors == 1) {
    for (std::int64_t t = 0; t < count; ++t, in += stride) {
      sum0 = hn::Add(sum0, hn::Mul(pixels(in), hn::Set(wide, weights[t])));
    }
    store(sum0, out);
  } else {
    static_assert(Vectors == 4);
    auto sum1 = sum0;
    auto sum2 = sum0;
    auto sum3 = sum0;
    for (std::int64_t t = 0; t < count; ++t, in += stride) {
      const auto weight = hn::Set(wide, weights[t]);
      sum0 = hn::Add(sum0, hn::Mul(pixels(in), weight));
      sum1 = hn::Add(sum1, hn::Mul(pixels(in + lanes), weight));
      sum2 = hn::Add(sum2, hn::Mul(pixels(in + 2 * lanes), weight));
      sum3 = hn::Add(sum3, hn::Mul(pixels(in + 3 * lanes), weight));
    }
    store(sum0, out);
    store(sum1, out + lanes);
    store(sum2, out + 2 * lanes);
    store(sum3, out + 3 * lanes);
  }
}

void ResampleRows(const std::uint8_t* in, std::ptrdiff_t in_stride, const AxisWeights& axis, std::uint8_t* out,
                  std::ptrdiff_t out_stride, std::int64_t n) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<std::int32_t>()));
  const std::int32_t* weights = axis.weights.data();
  for (const Taps& taps : axis.taps) {
    const std::uint8_t* rows = in + taps.first * in_stride;
    std::int64_t i = 0;
    for (; i + 4 * lanes <= n; i += 4 * lanes) weighted_sum<4>(rows + i, in_stride, weights, taps.count, out + i);
    for (; i + lanes <= n; i += lanes) weighted_sum<1>(rows + i, in_stride, weights, taps.count, out + i);
    for (; i < n; ++i) {
      std::int32_t sum = kHalf;
      for (std::int64_t t = 0; t < taps.count; ++t) sum += weights[t] * rows[t * in_stride + i];
      out[i] = static_cast<std::uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
    }
    weights += axis.width;
    out += out_stride;
  }
}

#if HWY_TARGET == HWY_SCALAR
constexpr bool kHasBlocks = false;
HWY_INLINE void transpose_block(const std::uint8_t*, std::ptrdiff_t, std::uint8_t*, std::ptrdiff_t) {}
#else
constexpr bool kHasBlocks = true;
/// A 16×16 block: interleaving row i with row i + 8 four times over is a transposition.
HWY_INLINE void transpose_block(const std::uint8_t* HWY_RESTRICT in, std::ptrdiff_t in_stride,
                                std::uint8_t* HWY_RESTRICT out, std::ptrdiff_t out_stride) {
  const hn::FixedTag<std::uint8_t, 16> d;
  HWY_ALIGN std::uint8_t scratch[2][256];
  const auto round = [&](const std::uint8_t* from, std::ptrdiff_t from_stride, std::uint8_t* to,
                         std::ptrdiff_t to_stride) {
    for (int i = 0; i < 8; ++i) {
      const auto upper = hn::LoadU(d, from + i * from_stride);
      const auto lower = hn::LoadU(d, from + (i + 8) * from_stride);
      hn::StoreU(hn::InterleaveLower(d, upper, lower), d, to + 2 * i * to_stride);
      hn::StoreU(hn::InterleaveUpper(d, upper, lower), d, to + (2 * i + 1) * to_stride);
    }
  };
  round(in, in_stride, scratch[0], 16);
  round(scratch[0], 16, scratch[1], 16);
  round(scratch[1], 16, scratch[0], 16);
  round(scratch[0], 16, out, out_stride);
}
#endif

void TransposeBytes(const std::uint8_t* in, std::ptrdiff_t in_stride, std::int64_t rows, std::int64_t columns,
                    std::uint8_t* out, std::ptrdiff_t out_stride) {
  for (std::int64_t y = 0; y < rows; y += 16) {
    for (std::int64_t x = 0; x < columns; x += 16) {
      const std::uint8_t* from = in + y * in_stride + x;
      std::uint8_t* to = out + x * out_stride + y;
      if (kHasBlocks && y + 16 <= rows && x + 16 <= columns) {
        transpose_block(from, in_stride, to, out_stride);
        continue;
      }
      for (std::int64_t j = 0; j < std::min<std::int64_t>(16, columns - x); ++j) {
        for (std::int64_t i = 0; i < std::min<std::int64_t>(16, rows - y); ++i) {
          to[j * out_stride + i] = from[i * in_stride + j];
        }
      }
    }
  }
}

}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {

HWY_EXPORT(ResampleRows);
HWY_EXPORT(TransposeBytes);

void resample_rows(const std::uint8_t* in, std::ptrdiff_t in_stride, const AxisWeights& axis, std::uint8_t* out,
                   std::ptrdiff_t out_stride, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(ResampleRows)(in, in_stride, axis, out, out_stride, n);
}

void transpose_bytes(const std::uint8_t* in, std::ptrdiff_t in_stride, std::int64_t rows, std::int64_t columns,
                     std::uint8_t* out, std::ptrdiff_t out_stride) {
  HWY_DYNAMIC_DISPATCH(TransposeBytes)(in, in_stride, rows, columns, out, out_stride);
}

}  // namespace weft
#endif
