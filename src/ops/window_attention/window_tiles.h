// The pieces of window attention that are SIMD code: rows of tokens in and out, the bias, and a small window entirely.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernel/attention_tiles.h"

namespace weft {

/// Rows of `channels` elements of q, k, v or y, one for each token, anywhere in memory.
struct TokenRows {
  const std::byte* base = nullptr;
  bool is_bf16 = false;                   // else f32
  std::span<const std::int64_t> offsets;  // of each row, in elements
  std::int64_t channels = 0;              // D
};

/// to[i] = factor · row i, in f32, `step` elements from one to the next.
void gather_rows(const TokenRows& rows, float factor, float* to, std::int64_t step);
/// The other way, into memory that TokenRows points to.
void scatter_rows(const float* from, std::int64_t step, const TokenRows& rows);

/// What is added to the scores of one window and head: bias and mask, in powers of two (times log2 e).
struct WindowBias {
  const float* table;     // entry dy · row_step + window_w − 1 + x' − x for a query at (y,x) and a key at (y',x')
  std::int64_t row_step;  // 0 where the rows are equal
  std::int64_t window_h, window_w;
  std::int64_t rows_before, columns_before;  // of the border of the grid
};

/// Fills a row for each query of `queries` from `first_query` on, for `keys` keys from `first_key` on; in what then is
/// left of `step`, something that no probability comes out of. Reads up to
/// kBiasSlack elements behind the table, and writes as many behind the last row.
void fill_bias(const WindowBias& bias, std::int64_t first_query, std::int64_t queries, std::int64_t first_key,
               std::int64_t keys, float* to, std::int64_t step);

/// Bytes that attend_window needs for windows of this size; a multiple of 64.
std::size_t attend_scratch_bytes(std::int64_t tokens, std::int64_t channels);
/// y = softmax(factor · q·kᵀ + bias) · v, all four having rows for the tokens of one window; `factor` times log2 e.
void attend_window(const TokenRows& q, const TokenRows& k, const TokenRows& v, const TokenRows& y, float factor,
                   const WindowBias& bias, std::byte* scratch);

}  // namespace weft
