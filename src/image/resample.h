// One pass of a separable resize: every output row is a weighted sum of neighbouring input rows, in fixed point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace weft {

/// Fractional bits of a weight. 8 bits of a 32-bit sum hold the pixel and 2 the overshoot of filters with negative
/// lobes (Pillow, Resample.c).
inline constexpr int kWeightBits = 32 - 8 - 2;

/// Which input positions one output position mixes.
struct Taps {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

/// The weights of all output positions along one axis, `width` apart.
struct AxisWeights {
  std::vector<Taps> taps;
  std::vector<std::int32_t> weights;
  std::int64_t width = 0;
};

/// For every output row y with taps {first, count} and its weights w:
///   out[y·out_stride + i] = clip8((2^(kWeightBits−1) + Σ_t w[t] · in[(first + t)·in_stride + i]) >> kWeightBits)
/// for i in [0, n). Strides count bytes.
void resample_rows(const std::uint8_t* in, std::ptrdiff_t in_stride, const AxisWeights& axis, std::uint8_t* out,
                   std::ptrdiff_t out_stride, std::int64_t n);

/// out[x·out_stride + y] = in[y·in_stride + x] for y in [0, rows), x in [0, columns).
void transpose_bytes(const std::uint8_t* in, std::ptrdiff_t in_stride, std::int64_t rows, std::int64_t columns,
                     std::uint8_t* out, std::ptrdiff_t out_stride);

}  // namespace weft
