// The pieces of window attention that are SIMD code: rows of tokens in and out, the bias, and small windows entirely.
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

/// Rows in f32, `step` elements from one to the next.
void gather_rows(const TokenRows& rows, float* to, std::int64_t step);
/// The other way, into memory that TokenRows points to.
void scatter_rows(const float* from, std::int64_t step, const TokenRows& rows);

/// What is added to the scores of one window and head: bias and mask, in powers of two (times log2 e). A window of one
/// column may be told as one of one row.
struct WindowBias {
  const float* table;     // entry dy · row_step + window_w − 1 + x' − x for a query at (y,x) and a key at (y',x')
  std::int64_t row_step;  // 0 where the rows are equal
  std::int64_t window_h, window_w;
  std::int64_t rows_before, columns_before;  // of the border of the grid
};

/// Fills a row for each query of `queries` from `first_query` on, for `keys` keys from `first_key` on; in what then is
/// left of `step`, something that no probability comes out of. Reads up to kBiasSlack elements behind the table, and
/// writes as many behind the last row.
void fill_bias(const WindowBias& bias, std::int64_t first_query, std::int64_t queries, std::int64_t first_key,
               std::int64_t keys, float* to, std::int64_t step);

/// Some neighbouring heads of some windows that stand side by side. Work is done for all of them at once, so that what
/// is near in memory is read and written together.
struct WindowGroup {
  std::span<const std::int64_t> rows;     // where each row of the windows begins, in elements
  std::span<const std::int64_t> columns;  // where each column of all of them is in a row, window by window
  std::int64_t window_w = 0;
  std::int64_t heads = 0;
  std::int64_t channels = 0;  // of a head, D

  std::int64_t windows() const { return static_cast<std::int64_t>(columns.size()) / window_w; }
  std::int64_t tokens() const { return static_cast<std::int64_t>(rows.size()) * window_w; }  // of a window
};

/// A tensor of tokens, from the first channel of a group's first head on.
struct Tokens {
  const std::byte* base = nullptr;
  bool is_bf16 = false;  // else f32
};

/// Bytes that attend_windows needs for as many heads of as many windows; a multiple of 64.
std::size_t attend_scratch_bytes(std::int64_t tokens, std::int64_t channels, std::int64_t parts);
/// y = softmax(factor · q·kᵀ + bias) · v; `factor` times log2 e, a bias for each head of each window.
void attend_windows(const WindowGroup& group, Tokens q, Tokens k, Tokens v, Tokens y, float factor,
                    std::span<const WindowBias> biases, std::byte* scratch);

}  // namespace weft
