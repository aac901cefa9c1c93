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

// Where attend_windows has what, in floats.
struct WindowScratch {
  std::size_t tokens, channels, padded_tokens, padded_channels;
  std::size_t queries, keys, values, turned, scores, sums, end;

  // `parts`: heads of windows.
  WindowScratch(std::size_t n, std::size_t d, std::size_t parts)
      : tokens(n), channels(d), padded_tokens(whole_vectors(n)), padded_channels(whole_vectors(d)) {
    queries = 0;                                             // [parts,N,D], and in its place the result
    keys = queries + whole_vectors(parts * n * d);           // [parts,N,D]
    values = keys + whole_vectors(parts * n * d);            // [parts,N,padded D]
    turned = values + parts * n * padded_channels;           // the keys of one part, [D,padded N]
    scores = turned + d * padded_tokens;                     // [kTileRows,padded N]
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

HWY_INLINE V load(D d, const float* from) { return hn::LoadU(d, from); }
HWY_INLINE V load(D d, const std::uint16_t* from) { return load_bf16(d, from); }
HWY_INLINE V load(D d, const float* from, std::size_t count) { return load_n(d, from, count); }
HWY_INLINE V load(D d, const std::uint16_t* from, std::size_t count) { return load_bf16_n(d, from, count); }

// y = f · x
template <class T>
HWY_INLINE void copy_scaled(const T* from, V f, float* to, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t c = 0;
  for (; c + lanes <= count; c += lanes) hn::StoreU(hn::Mul(f, load(d, from + c)), d, to + c);
  if (c < count) store_n(hn::Mul(f, load(d, from + c, count - c)), d, to + c, count - c);
}
HWY_INLINE void copy(const float* from, float* to, std::size_t count) {
  copy_scaled(from, hn::Set(D(), 1.0F), to, count);
}
HWY_INLINE void copy(const float* from, std::uint16_t* to, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t c = 0;
  for (; c + lanes <= count; c += lanes) store_bf16(hn::LoadU(d, from + c), d, to + c);
  if (c < count) store_bf16_n(load_n(d, from + c, count - c), d, to + c, count - c);
}

void gather(const TokenRows& rows, float* to, std::int64_t step) {
  const auto channels = static_cast<std::size_t>(rows.channels);
  const V one = hn::Set(D(), 1.0F);
  for (const std::int64_t offset : rows.offsets) {
    if (rows.is_bf16) {
      copy_scaled(reinterpret_cast<const std::uint16_t*>(rows.base) + offset, one, to, channels);
    } else {
      copy_scaled(reinterpret_cast<const float*>(rows.base) + offset, one, to, channels);
    }
    to += step;
  }
}

void scatter(const float* from, std::int64_t step, const TokenRows& rows) {
  std::byte* const base = const_cast<std::byte*>(rows.base);
  const auto channels = static_cast<std::size_t>(rows.channels);
  for (const std::int64_t offset : rows.offsets) {
    if (rows.is_bf16) {
      copy(from, reinterpret_cast<std::uint16_t*>(base) + offset, channels);
    } else {
      copy(from, reinterpret_cast<float*>(base) + offset, channels);
    }
    from += step;
  }
}

// Calls visit(part, position, offset) for each head of each token, in the order of memory.
template <class F>
HWY_INLINE void for_each_part(const WindowGroup& group, const F& visit) {
  const auto width = static_cast<std::size_t>(group.window_w);
  const auto heads = static_cast<std::size_t>(group.heads);
  for (std::size_t y = 0; y < group.rows.size(); ++y) {
    for (std::size_t j = 0; j < group.columns.size(); ++j) {
      const std::int64_t offset = group.rows[y] + group.columns[j];
      for (std::size_t head = 0; head < heads; ++head) {
        visit(j / width * heads + head, y * width + j % width,
              offset + static_cast<std::int64_t>(head) * group.channels);
      }
    }
  }
}

// To rows of `step` elements, [parts,N,step].
void gather_group(const WindowGroup& group, Tokens x, float factor, float* to, std::size_t step) {
  const auto channels = static_cast<std::size_t>(group.channels);
  const auto tokens = static_cast<std::size_t>(group.tokens());
  const V f = hn::Set(D(), factor);
  const auto copy_from = [&](const auto* base) HWY_ATTR {
    for_each_part(group, [&](std::size_t part, std::size_t position, std::int64_t offset) HWY_ATTR {
      copy_scaled(base + offset, f, to + (part * tokens + position) * step, channels);
    });
  };
  if (x.is_bf16) return copy_from(reinterpret_cast<const std::uint16_t*>(x.base));
  copy_from(reinterpret_cast<const float*>(x.base));
}

// From [parts,N,D].
void scatter_group(const WindowGroup& group, const float* from, Tokens y) {
  const auto channels = static_cast<std::size_t>(group.channels);
  const auto tokens = static_cast<std::size_t>(group.tokens());
  const auto copy_to = [&](auto* base) HWY_ATTR {
    for_each_part(group, [&](std::size_t part, std::size_t position, std::int64_t offset)
                             HWY_ATTR { copy(from + (part * tokens + position) * channels, base + offset, channels); });
  };
  std::byte* const base = const_cast<std::byte*>(y.base);
  if (y.is_bf16) return copy_to(reinterpret_cast<std::uint16_t*>(base));
  copy_to(reinterpret_cast<float*>(base));
}

// to[i] = from[i] + term for at least `count` elements.
HWY_INLINE void add_to_row(const float* from, float term, float* to, std::int64_t count) {
  const D d;
  const V t = hn::Set(d, term);
  for (std::int64_t i = 0; i < count; i += static_cast<std::int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::Add(t, hn::LoadU(d, from + i)), d, to + i);
  }
}

// One query's row of bias and mask: keys from (key_y,key_x) on, so many to the end of the window's row.
HWY_INLINE void fill_run(const WindowBias& bias, const float* table, bool across_rows, std::int64_t x,
                         std::int64_t key_x, std::int64_t count, float* to) {
  constexpr auto kAcross = static_cast<float>(kAcrossBorder * std::numbers::log2e);
  const std::int64_t before = std::clamp<std::int64_t>(bias.columns_before - key_x, 0, count);
  const bool is_before = x < bias.columns_before;
  add_to_row(table, across_rows || !is_before ? kAcross : 0.0F, to, before);
  add_to_row(table + before, across_rows || is_before ? kAcross : 0.0F, to + before, count - before);
}

// Rows overlap what follows them, so they are filled in order.
void fill(const WindowBias& bias, std::int64_t first_query, std::int64_t queries, std::int64_t first_key,
          std::int64_t keys, float* to, std::int64_t step) {
  constexpr float kNever = -1e30F;
  const std::int64_t width = bias.window_w;
  const bool has_border = bias.rows_before < bias.window_h || bias.columns_before < width;
  std::int64_t y = first_query / width;
  std::int64_t x = first_query % width;
  const std::int64_t first_y = first_key / width;
  const std::int64_t first_x = first_key % width;
  for (std::int64_t query = 0; query < queries; ++query, to += step) {
    const float* table = bias.table + (y - first_y + bias.window_h - 1) * bias.row_step + width - 1 - x;
    float* row = to;
    std::int64_t left = keys;
    std::int64_t key_x = first_x;
    for (std::int64_t key_y = first_y; left > 0; ++key_y, table -= bias.row_step) {
      const std::int64_t count = std::min(width - key_x, left);
      if (has_border) {
        const bool across = (y < bias.rows_before) != (key_y < bias.rows_before);
        fill_run(bias, table + key_x, across, x, key_x, count, row);
      } else {
        add_to_row(table + key_x, 0, row, count);
      }
      row += count;
      left -= count;
      key_x = 0;
    }
    std::fill(row, to + step, kNever);
    if (++x == width) {
      x = 0;
      ++y;
    }
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

// One head of one window: from queries, keys and values to the result, which takes the queries' place.
void attend_part(const WindowScratch& at, const WindowBias& bias, float* queries, const float* keys,
                 const float* values, float* memory) {
  float* const turned = memory + at.turned;
  float* const scores = memory + at.scores;
  float* const sums = memory + at.sums;
  const D d;
  transpose(keys, at.channels, at.tokens, at.channels, turned, at.padded_tokens);
  for (std::size_t c = 0; c < at.channels; ++c) {
    std::fill(turned + c * at.padded_tokens + at.tokens, turned + (c + 1) * at.padded_tokens, 0.0F);
  }
  for (std::size_t first = 0; first < at.tokens; first += kTileRows) {
    const std::size_t rows = std::min(kTileRows, at.tokens - first);
    float* const tile = queries + first * at.channels;
    fill(bias, static_cast<std::int64_t>(first), static_cast<std::int64_t>(rows), 0,
         static_cast<std::int64_t>(at.tokens), scores, static_cast<std::int64_t>(at.padded_tokens));
    product(rows, tile, at.channels, turned, at.padded_tokens, at.channels, scores);
    float totals[kTileRows];
    for (std::size_t r = 0; r < rows; ++r) totals[r] = softmax_row(scores + r * at.padded_tokens, at.padded_tokens);
    std::fill_n(sums, rows * at.padded_channels, 0.0F);
    product(rows, scores, at.padded_tokens, values, at.padded_channels, at.tokens, sums);
    for (std::size_t r = 0; r < rows; ++r) {
      copy_scaled(sums + r * at.padded_channels, hn::Set(d, 1 / totals[r]), tile + r * at.channels, at.channels);
    }
  }
}

void attend(const WindowGroup& group, Tokens q, Tokens k, Tokens v, Tokens y, float factor,
            std::span<const WindowBias> biases, std::byte* scratch) {
  const WindowScratch at(static_cast<std::size_t>(group.tokens()), static_cast<std::size_t>(group.channels),
                         biases.size());
  auto* const memory = reinterpret_cast<float*>(scratch);
  float* const queries = memory + at.queries;
  float* const keys = memory + at.keys;
  float* const values = memory + at.values;
  gather_group(group, k, 1, keys, at.channels);
  gather_group(group, v, 1, values, at.padded_channels);
  gather_group(group, q, factor, queries, at.channels);
  for (std::size_t part = 0; part < biases.size(); ++part) {
    const std::size_t row = part * at.tokens;
    attend_part(at, biases[part], queries + row * at.channels, keys + row * at.channels,
                values + row * at.padded_channels, memory);
  }
  scatter_group(group, queries, y);
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

void gather_rows(const TokenRows& rows, float* to, std::int64_t step) { HWY_DYNAMIC_DISPATCH(gather)(rows, to, step); }

void scatter_rows(const float* from, std::int64_t step, const TokenRows& rows) {
  HWY_DYNAMIC_DISPATCH(scatter)(from, step, rows);
}

void fill_bias(const WindowBias& bias, std::int64_t first_query, std::int64_t queries, std::int64_t first_key,
               std::int64_t keys, float* to, std::int64_t step) {
  HWY_DYNAMIC_DISPATCH(fill)(bias, first_query, queries, first_key, keys, to, step);
}

std::size_t attend_scratch_bytes(std::int64_t tokens, std::int64_t channels, std::int64_t parts) {
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  return WindowScratch(size(tokens), size(channels), size(parts)).end * sizeof(float);
}

void attend_windows(const WindowGroup& group, Tokens q, Tokens k, Tokens v, Tokens y, float factor,
                    std::span<const WindowBias> biases, std::byte* scratch) {
  HWY_DYNAMIC_DISPATCH(attend)(group, q, k, v, y, factor, biases, scratch);
}

}  // namespace weft
#endif
