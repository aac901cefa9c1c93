// How the rows of a product's input are stored when it multiplies in fewer bits.
//
//   kBF16   K bfloat16, rounded to nearest even
//   kI8     K bytes q, each x ≈ low + scale·q with the row's own low = min x and scale = (max x − min x)/255; then, at the
//           next multiple of 64 bytes, scale and low as f32
//
// Zero is exact where it is the smallest of its row (after a ReLU). A NaN or an infinity makes the whole row's product a
// NaN, as it would have to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernel/kernel.h"

namespace weft {

/// Bytes from one encoded row of K elements to the next.
std::size_t encoded_row_bytes(DType encoding, std::int64_t k);
/// Where scale and low are in a kI8 row.
std::size_t encoded_scale_offset(std::int64_t k);

/// From f32 rows [rows,K] to encoded ones: kBF16 or kI8.
std::unique_ptr<RowKernel> make_encoder(DType encoding, std::int64_t rows, std::int64_t k);

/// y = scale·y + low·sums + bias for products of encoded kI8 rows, y [rows,N], in place. `sums` has per column the sum
/// of the weights, `bias` may be null.
void decode_rows(const std::byte* encoded, std::int64_t k, float* y, std::int64_t rows, std::int64_t n,
                 const float* sums, const float* bias);

}  // namespace weft
