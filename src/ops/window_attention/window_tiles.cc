#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/window_attention/window_tiles.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <numbers>

#include "kernel/math-inl.h"
#include "kernel/simd.h"
#include "ops/window_attention/window_attention.h"
#include "ops/window_attention/window_tiles.h"

#ifndef WEFT_WINDOW_SCRATCH_
#define WEFT_WINDOW_SCRATCH_
namespace weft {
namespace {

// Rows are padded to whole vectors of any target.
constexpr std::size_t whole_vectors(std::size_t n) { return (n + 15) / 16 * 16; }
constexpr std::size_t kTileRows = 6;

// Where attend_window has what, in floats.
struct WindowScratch {
  std::size_t tokens, channels, padded_tokens, padded_channels;
  std::size_t queries, keys, values, scores, sums, end;

  WindowScratch(std::size_t n, std::size_t d)
      : tokens(n), channels(d), padded_tokens(whole_vectors(n)), padded_channels(whole_vectors(d)) {
    queries = 0;                                             // [N,D], before that the keys
    keys = queries + whole_vectors(n * d);                   // [D,padded N]
    values = keys + d * padded_tokens;                       // [N,padded D]
    scores = values + n * padded_channels;                   // [kTileRows,padded N]
    sums = scores + kTileRows * padded_tokens + kBiasSlack;  // [kTileRows,padded D]
    end = sums + kTileRows * padded_channels;
  }
};

}  // namespace
}  // namespace weft
#endif

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

void gather(const TokenRows& rows, float factor, float* to, std::int64_t step) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const auto channels = static_cast<std::size_t>(rows.channels);
  const V f = hn::Set(d, factor);
  for (const std::int64_t offset : rows.offsets) {
    std::size_t c = 0;
    if (rows.is_bf16) {
      const auto* const from = reinterpret_cast<const std::uint16_t*>(rows.base) + offset;
      for (; c + lanes <= channels; c += lanes) hn::StoreU(hn::Mul(f, load_bf16(d, from + c)), d, to + c);
      if (c < channels) store_n(hn::Mul(f, load_bf16_n(d, from + c, channels - c)), d, to + c, channels - c);
    } else {
      const auto* const from = reinterpret_cast<const float*>(rows.base) + offset;
      for (; c + lanes <= channels; c += lanes) hn::StoreU(hn::Mul(f, hn::LoadU(d, from + c)), d, to + c);
      if (c < channels) store_n(hn::Mul(f, load_n(d, from + c, channels - c)), d, to + c, channels - c);
    }
    to += step;
  }
}

// A row of `channels` elements times `factor` to where row `index` is.
HWY_INLINE void put_row(const float* from, float factor, const TokenRows& rows, std::size_t index) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const auto channels = static_cast<std::size_t>(rows.channels);
  const V f = hn::Set(d, factor);
  std::byte* const base = const_cast<std::byte*>(rows.base);
  std::size_t c = 0;
  if (rows.is_bf16) {
    auto* const to = reinterpret_cast<std::uint16_t*>(base) + rows.offsets[index];
    for (; c + lanes <= channels; c += lanes) store_bf16(hn::Mul(f, hn::LoadU(d, from + c)), d, to + c);
    if (c < channels) store_bf16_n(hn::Mul(f, load_n(d, from + c, channels - c)), d, to + c, channels - c);
  } else {
    auto* const to = reinterpret_cast<float*>(base) + rows.offsets[index];
    for (; c + lanes <= channels; c += lanes) hn::StoreU(hn::Mul(f, hn::LoadU(d, from + c)), d, to + c);
    if (c < channels) store_n(hn::Mul(f, load_n(d, from + c, channels - c)), d, to + c, channels - c);
  }
}

void scatter(const float* from, std::int64_t step, const TokenRows& rows) {
  for (std::size_t i = 0; i < rows.offsets.size(); ++i, from += step) put_row(from, 1, rows, i);
}

// to[i] = from[i] + term for at least `count` elements.
HWY_INLINE void add_to_row(const float* from, float term, float* to, std::int64_t count) {
  const D d;
  const V t = hn::Set(d, term);
  for (std::int64_t i = 0; i < count; i += static_cast<std::int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::Add(t, hn::LoadU(d, from + i)), d, to + i);
  }
}

// Rows overlap what follows them, so they are filled in order.
void fill(const WindowBias& bias, std::int64_t first_query, std::int64_t queries, std::int64_t first_key,
          std::int64_t keys, float* to, std::int64_t step) {
  constexpr auto kAcross = static_cast<float>(kAcrossBorder * std::numbers::log2e);
  constexpr float kNever = -1e30F;
  const std::int64_t width = bias.window_w;
  for (std::int64_t query = first_query; query < first_query + queries; ++query, to += step) {
    const std::int64_t y = query / width;
    const std::int64_t x = query % width;
    std::int64_t key_x = first_key % width;
    std::int64_t key_y = first_key / width;
    float* row = to;
    for (std::int64_t left = keys; left > 0; key_x = 0, ++key_y) {
      const float* const table = bias.table + (y - key_y + bias.window_h - 1) * bias.row_step + width - 1 - x;
      const bool across_rows = (y < bias.rows_before) != (key_y < bias.rows_before);
      const std::int64_t end = std::min(width, key_x + left);
      while (key_x < end) {
        const bool before = key_x < bias.columns_before;
        const std::int64_t until = before ? std::min(end, bias.columns_before) : end;
        const bool across = across_rows || (x < bias.columns_before) != before;
        add_to_row(table + key_x, across ? kAcross : 0.0F, row, until - key_x);
        row += until - key_x;
        left -= until - key_x;
        key_x = until;
      }
    }
    std::fill(row, to + step, kNever);
  }
}

// c[kRows,kVectors] += a[kRows,k] · b[k,kVectors], the latter two in vectors.
template <int kRows, int kVectors>
HWY_INLINE void product_block(const float* a, std::size_t a_step, const float* b, std::size_t b_step, std::size_t k,
                              float* c, std::size_t c_step) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  V sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < kVectors; ++n) sums[r][n] = hn::LoadU(d, c + r * c_step + n * lanes);
  }
  for (std::size_t i = 0; i < k; ++i, b += b_step, ++a) {
    V values[kVectors];
#pragma GCC unroll 8
    for (int n = 0; n < kVectors; ++n) values[n] = hn::LoadU(d, b + n * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const V factor = hn::Set(d, a[r * a_step]);
#pragma GCC unroll 8
      for (int n = 0; n < kVectors; ++n) sums[r][n] = hn::MulAdd(factor, values[n], sums[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < kVectors; ++n) hn::StoreU(sums[r][n], d, c + r * c_step + n * lanes);
  }
}

// The widest that leaves accumulators of kTileRows rows in registers: 32 of them with AVX-512, else 16.
constexpr int kMostVectors = HWY_MAX_BYTES >= 64 ? 4 : 2;

template <int kRows>
void product_rows(const float* a, std::size_t a_step, const float* b, std::size_t n, std::size_t k, float* c) {
  const std::size_t lanes = hn::Lanes(D());
  std::size_t at = 0;
  for (; at + kMostVectors * lanes <= n; at += kMostVectors * lanes) {
    product_block<kRows, kMostVectors>(a, a_step, b + at, n, k, c + at, n);
  }
  switch ((n - at) / lanes) {
    case 3:
      return product_block<kRows, 3>(a, a_step, b + at, n, k, c + at, n);
    case 2:
      return product_block<kRows, 2>(a, a_step, b + at, n, k, c + at, n);
    case 1:
      return product_block<kRows, 1>(a, a_step, b + at, n, k, c + at, n);
    default:
      return;
  }
}

// c[rows,n] += a[rows,k] · b[k,n], n being whole vectors and rows ≤ kTileRows.
void product(std::size_t rows, const float* a, std::size_t a_step, const float* b, std::size_t n, std::size_t k,
             float* c) {
  switch (rows) {
    case 6:
      return product_rows<6>(a, a_step, b, n, k, c);
    case 5:
      return product_rows<5>(a, a_step, b, n, k, c);
    case 4:
      return product_rows<4>(a, a_step, b, n, k, c);
    case 3:
      return product_rows<3>(a, a_step, b, n, k, c);
    case 2:
      return product_rows<2>(a, a_step, b, n, k, c);
    default:
      return product_rows<1>(a, a_step, b, n, k, c);
  }
}

// A row of whole vectors of scores to probabilities that are not normalised; returns their sum.
HWY_INLINE float softmax_row(float* row, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  V largest = hn::LoadU(d, row);
  for (std::size_t i = lanes; i < count; i += lanes) largest = hn::Max(largest, hn::LoadU(d, row + i));
  const V shift = hn::MaxOfLanes(d, largest);
  V sum = hn::Zero(d);
  for (std::size_t i = 0; i < count; i += lanes) {
    const V e = exp2_of_negative(d, hn::Sub(hn::LoadU(d, row + i), shift));
    sum = hn::Add(sum, e);
    hn::StoreU(e, d, row + i);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

void attend(const TokenRows& q, const TokenRows& k, const TokenRows& v, const TokenRows& y, float factor,
            const WindowBias& bias, std::byte* scratch) {
  const WindowScratch at(q.offsets.size(), static_cast<std::size_t>(q.channels));
  auto* const memory = reinterpret_cast<float*>(scratch);
  float* const queries = memory + at.queries;
  float* const keys = memory + at.keys;
  float* const values = memory + at.values;
  float* const scores = memory + at.scores;
  float* const sums = memory + at.sums;
  gather(k, 1, queries, k.channels);
  transpose(queries, at.channels, at.tokens, at.channels, keys, at.padded_tokens);
  for (std::size_t c = 0; c < at.channels; ++c) {
    std::fill(keys + c * at.padded_tokens + at.tokens, keys + (c + 1) * at.padded_tokens, 0.0F);
  }
  gather(v, 1, values, static_cast<std::int64_t>(at.padded_channels));
  gather(q, factor, queries, q.channels);
  for (std::size_t first = 0; first < at.tokens; first += kTileRows) {
    const std::size_t rows = std::min(kTileRows, at.tokens - first);
    fill(bias, static_cast<std::int64_t>(first), static_cast<std::int64_t>(rows), 0,
         static_cast<std::int64_t>(at.tokens), scores, static_cast<std::int64_t>(at.padded_tokens));
    product(rows, queries + first * at.channels, at.channels, keys, at.padded_tokens, at.channels, scores);
    float totals[kTileRows];
    for (std::size_t r = 0; r < rows; ++r) totals[r] = softmax_row(scores + r * at.padded_tokens, at.padded_tokens);
    std::fill_n(sums, rows * at.padded_channels, 0.0F);
    product(rows, scores, at.padded_tokens, values, at.padded_channels, at.tokens, sums);
    for (std::size_t r = 0; r < rows; ++r) put_row(sums + r * at.padded_channels, 1 / totals[r], y, first + r);
  }
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(gather);
HWY_EXPORT(scatter);
HWY_EXPORT(fill);
HWY_EXPORT(attend);

}  // namespace

void gather_rows(const TokenRows& rows, float factor, float* to, std::int64_t step) {
  HWY_DYNAMIC_DISPATCH(gather)(rows, factor, to, step);
}

void scatter_rows(const float* from, std::int64_t step, const TokenRows& rows) {
  HWY_DYNAMIC_DISPATCH(scatter)(from, step, rows);
}

void fill_bias(const WindowBias& bias, std::int64_t first_query, std::int64_t queries, std::int64_t first_key,
               std::int64_t keys, float* to, std::int64_t step) {
  HWY_DYNAMIC_DISPATCH(fill)(bias, first_query, queries, first_key, keys, to, step);
}

std::size_t attend_scratch_bytes(std::int64_t tokens, std::int64_t channels) {
  return WindowScratch(static_cast<std::size_t>(tokens), static_cast<std::size_t>(channels)).end * sizeof(float);
}

void attend_window(const TokenRows& q, const TokenRows& k, const TokenRows& v, const TokenRows& y, float factor,
                   const WindowBias& bias, std::byte* scratch) {
  HWY_DYNAMIC_DISPATCH(attend)(q, k, v, y, factor, bias, scratch);
}

}  // namespace weft
#endif
