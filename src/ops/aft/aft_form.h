// What the CPU kernels of attention free attention share: its extents, which tokens have a bias, and the path in log
// space for numbers that leave the range of f32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/aft/aft.h"

namespace weft {

/// Keys of a channel and biases of a row may together span this much: the smallest weight is e^-60 of the largest,
/// which leaves room for a |v| down to 1e-10 and up to 1e10.
constexpr float kAftSpan = 60;

/// Positions [begin,end).
struct AftRange {
  std::int64_t begin, end;
};

struct AftForm {
  AftForm(const Aft& attributes, std::span<const TensorType> in);

  bool causal;
  std::int64_t batch, tokens, channels, keys;
  std::int64_t height, width;                            // of the grid; a line is 1 × T
  std::int64_t window = 0, table_step = 0;               // of a table, 0 without one; window = T where all of it counts
  std::int64_t filters = 0, kernel_h = 1, kernel_w = 0;  // of filters; 0 × 0 without any

  std::int64_t taps() const { return filters > 0 ? kernel_h * kernel_w : 0; }
  std::int64_t key_of(std::int64_t channel) const { return channel / (channels / keys); }
  /// The rows of the grid, and the columns of these, whose tokens have a bias for one at row `y`, or column `x`. Column
  /// x is among them, unless there is no bias at all.
  AftRange biased_rows(std::int64_t y) const;
  AftRange biased_columns(std::int64_t x) const;
  /// The tap that row `row` and column `column` have for the token at (y,x).
  std::int64_t tap(std::int64_t y, std::int64_t x, std::int64_t row, std::int64_t column) const;
};

/// Stays in range whatever the exponents are.
AftSums sum_of(const AftSums& a, const AftSums& b);

/// For how many AftSums there must be memory.
inline std::size_t aft_log_sums(const AftForm& form) { return 2 * static_cast<std::size_t>(form.width + 1); }

/// Tokens [begin,end) of one channel of one batch entry. k, v, bias and y are whole.
void aft_in_log_space(const AftForm& form, const float* k, const float* v, const float* bias, float* y,
                      std::int64_t entry, std::int64_t channel, AftRange tokens, AftSums* memory);

/// The kernels: of sums, and of a table's products.
std::unique_ptr<Kernel> make_aft_sums(const AftForm& form, int threads);
std::unique_ptr<Kernel> make_aft_table(const AftForm& form, int threads);

}  // namespace weft
