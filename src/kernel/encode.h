// How the rows of a product's input are stored when it multiplies in fewer bits.
//
//   kBF16   K bfloat16, rounded to nearest even
//   kI8     K bytes q, and beside them two f32, scale and low: x ≈ low + scale·q with the row's own low = min x and
//           scale = (max x − min x)/255, or 2^-126 where that is less
//
// Zero is exact where it is the smallest of its row (after a ReLU). A NaN or an infinity makes the whole row's product
// a NaN, as it would have to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernel/kernel.h"

namespace weft {

/// Scale and low of a kI8 row.
struct RowScale {
  float scale = 0;
  float low = 0;
};

/// From f32 rows [rows,K] to encoded ones: kBF16, or kI8 with the RowScale [rows] as the second output.
std::unique_ptr<RowKernel> make_encoder(DType encoding, std::int64_t rows, std::int64_t k);

/// What makes y of the raw result of a product of kI8 rows: y = scale·raw + low·sums + bias, [rows,N], and then the
/// activation.
struct Decoding {
  std::int64_t n = 0;
  const float* sums = nullptr;  // per column the sum of the weights
  const float* bias = nullptr;  // may be null
  Activation activation = Activation::kNone;
};

/// y may be raw.
void decode_rows(const Decoding& decoding, const RowScale* scales, const float* raw, float* y, std::int64_t rows);
/// The same, encoded again: y to kI8 rows and their scales. `row` is scratch for N f32.
void recode_rows(const Decoding& decoding, const RowScale* scales, const float* raw, std::uint8_t* y,
                 RowScale* y_scales, std::int64_t rows, float* row);

}  // namespace weft
