// One row times a matrix: what generating a token is made of. It takes as long as it takes to read the weights; a
// product of oneDNN's reads them at some 80 % of the machine's rate.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weft/tensor.h"

namespace weft {

/// A matrix [K,N] in blocks of 64 columns, one behind the other, as oneDNN lays out what it multiplies. Within a block
/// come K/G groups of G inputs, and in a group for each column the G weights: G is 1 in f32, 2 in bf16, 4 in int8.
struct ColumnBlocks {
  static constexpr std::int64_t kColumns = 64;

  DType dtype = DType::kF32;  // kF32, kBF16 or kI8
  std::int64_t k = 0, n = 0;
  std::size_t block_bytes = 0;  // from block to block; the last one has 64 columns, too
  const std::byte* data = nullptr;
};

/// A row x [K] as multiply_row takes it, for all its columns: x is f32, bf16 or, for int8 weights, u8. `to` has
/// matvec_row_bytes(k), aligned to 64.
void prepare_row(const ColumnBlocks& weights, const std::byte* x, std::byte* to);
std::size_t matvec_row_bytes(std::int64_t k);

/// sums[c − begin] = Σ_k x[k]·w[k,c] for the columns of blocks [begin/64, end/64), both multiples of 64 or the end N.
/// `row` is what prepare_row made of x. Of u8 and int8 the sums are exact before they become f32. `sums` has room for
/// whole blocks.
void multiply_row(const ColumnBlocks& weights, const std::byte* row, std::int64_t begin, std::int64_t end, float* sums);

}  // namespace weft
