#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/attention_rows.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "core/half.h"
#include "kernel/attention_rows.h"
#include "kernel/math-inl.h"
#include "kernel/simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;

// Two vectors as the element type that is multiplied: bf16 values are stored as their 16 bits, rounded to nearest even.
// A NaN may become an infinity: whoever stores probabilities sees to it that NaN gets into the row's sum.
HWY_INLINE void store_pair(F32 d, hn::Vec<F32> low, hn::Vec<F32> high, float* to) {
  hn::StoreU(low, d, to);
  hn::StoreU(high, d, to + hn::Lanes(d));
}
HWY_INLINE void store_pair(F32 /*d*/, hn::Vec<F32> low, hn::Vec<F32> high, std::uint16_t* to) {
#if HWY_TARGET == HWY_SCALAR
  to[0] = to_bfloat16(hn::GetLane(low)).bits;
  to[1] = to_bfloat16(hn::GetLane(high)).bits;
#else
  const hn::RebindToUnsigned<F32> d32;
  const hn::Repartition<std::uint16_t, F32> d16;
  const auto rounded = [&](hn::Vec<F32> values) HWY_ATTR {  // in the upper half of each element
    const auto bits = hn::BitCast(d32, values);
    const auto last = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
    return hn::BitCast(d16, hn::Add(hn::Add(bits, hn::Set(d32, 0x7FFF)), last));
  };
  hn::StoreU(hn::ConcatOdd(d16, rounded(high), rounded(low)), d16, to);
#endif
}

// The first `count` < 2·Lanes(d) elements of a pair.
template <class T>
void store_pair_n(F32 d, hn::Vec<F32> low, hn::Vec<F32> high, T* to, std::size_t count) {
  HWY_ALIGN T lanes[2 * hn::MaxLanes(F32())];
  store_pair(d, low, high, lanes);
  std::copy_n(lanes, count, to);
}

// y[i] = f(x[i]), two vectors at a time; what f makes of elements beyond the row's end goes nowhere.
template <class T, class F>
HWY_INLINE void transform_row(const float* x, T* y, std::size_t count, const F& f) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    store_pair(d, f(hn::LoadU(d, x + i), lanes), f(hn::LoadU(d, x + i + lanes), lanes), y + i);
  }
  if (i == count) return;
  const std::size_t rest = count - i;
  const auto low = f(rest < lanes ? load_n(d, x + i, rest) : hn::LoadU(d, x + i), std::min(rest, lanes));
  const std::size_t more = rest - std::min(rest, lanes);
  const auto high = f(more > 0 ? load_n(d, x + i + lanes, more) : hn::Zero(d), more);
  store_pair_n(d, low, high, y + i, rest);
}

// y = factor · x
template <class T>
void scale_row(const float* x, float factor, T* y, std::size_t count) {
  const auto f = hn::Set(F32(), factor);
  transform_row(x, y, count, [f](hn::Vec<F32> v, std::size_t) HWY_ATTR { return hn::Mul(f, v); });
}

float largest_of(const float* x, std::size_t count, float start) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  auto a = hn::Set(d, start);
  auto b = a;
  std::size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    a = hn::Max(a, hn::LoadU(d, x + i));
    b = hn::Max(b, hn::LoadU(d, x + i + lanes));
  }
  for (; i + lanes <= count; i += lanes) a = hn::Max(a, hn::LoadU(d, x + i));
  float largest = hn::GetLane(hn::MaxOfLanes(d, hn::Max(a, b)));
  for (; i < count; ++i) largest = std::max(largest, x[i]);
  return largest;
}

// y = 2^(x − shift) of a row of scores, none of which is larger than `shift`; returns their sum.
template <class T>
float exponentials(const float* x, float shift, T* y, std::size_t count) {
  const F32 d;
  const auto s = hn::Set(d, shift);
  auto sum = hn::Zero(d);
  transform_row(x, y, count, [&](hn::Vec<F32> v, std::size_t n) HWY_ATTR {
    auto e = exp2_of_negative(d, hn::Sub(v, s));
    if (n < hn::Lanes(d)) e = hn::IfThenElseZero(hn::FirstN(d, n), e);
    sum = hn::Add(sum, e);
    return e;
  });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <class T>
void softmax_rows(const AttentionRows& tile, std::size_t keys) {
  const F32 d;
  const auto channels = static_cast<std::size_t>(tile.channels);
  for (std::size_t row = 0; row < static_cast<std::size_t>(tile.rows); ++row) {
    const float* const scores = tile.scores + row * keys;
    const float before = tile.largest[row];
    const float largest = largest_of(scores, keys, before);
    if (largest != before) {  // what there is of the row was relative to a smaller maximum
      const float correction = hn::GetLane(exp2_of_negative(d, hn::Set(d, before - largest)));
      tile.largest[row] = largest;
      tile.totals[row] *= correction;
      scale_row(tile.sums + row * channels, correction, tile.sums + row * channels, channels);
    }
    tile.totals[row] += exponentials(scores, largest, static_cast<T*>(tile.probabilities) + row * keys, keys);
  }
}

template <class T>
void start_rows(const AttentionRows& tile, const float* q, std::int64_t q_step, float factor) {
  const auto channels = static_cast<std::size_t>(tile.channels);
  for (std::int64_t row = 0; row < tile.rows; ++row) {
    scale_row(q + row * q_step, factor, static_cast<T*>(tile.queries) + row * tile.channels, channels);
  }
}

void start(const AttentionRows& tile, bool bf16, const float* q, std::int64_t q_step, float factor) {
  if (bf16) {
    start_rows<std::uint16_t>(tile, q, q_step, factor);
  } else {
    start_rows<float>(tile, q, q_step, factor);
  }
  std::fill_n(tile.sums, tile.rows * tile.channels, 0.0F);
  std::fill_n(tile.largest, tile.rows, -std::numeric_limits<float>::infinity());
  std::fill_n(tile.totals, tile.rows, 0.0F);
}

void softmax(const AttentionRows& tile, bool bf16, std::size_t keys) {
  if (bf16) {
    softmax_rows<std::uint16_t>(tile, keys);
  } else {
    softmax_rows<float>(tile, keys);
  }
}

void finish(const AttentionRows& tile, float* y, std::int64_t y_step) {
  for (std::int64_t row = 0; row < tile.rows; ++row) {
    scale_row(tile.sums + row * tile.channels, 1 / tile.totals[row], y + row * y_step,
              static_cast<std::size_t>(tile.channels));
  }
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(start);
HWY_EXPORT(softmax);
HWY_EXPORT(finish);

}  // namespace

void start_attention(const AttentionRows& tile, bool bf16, const float* q, std::int64_t q_step, float factor) {
  HWY_DYNAMIC_DISPATCH(start)(tile, bf16, q, q_step, factor);
}

void attention_softmax(const AttentionRows& tile, bool bf16, std::int64_t keys) {
  HWY_DYNAMIC_DISPATCH(softmax)(tile, bf16, static_cast<std::size_t>(keys));
}

void finish_attention(const AttentionRows& tile, float* y, std::int64_t y_step) {
  HWY_DYNAMIC_DISPATCH(finish)(tile, y, y_step);
}

}  // namespace weft
#endif
