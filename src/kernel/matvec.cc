#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/matvec.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "core/half.h"
#include "kernel/matvec.h"
#include "kernel/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kColumns = ColumnBlocks::kColumns;
using F = hn::CappedTag<float, 16>;
using I = hn::RebindToSigned<F>;
using U = hn::RebindToUnsigned<F>;

// Four vectors of neighbouring columns.
template <class D>
struct Four {
  hn::Vec<D> v0, v1, v2, v3;
};
template <class D>
HWY_INLINE Four<D> load_four(D d, const hn::TFromD<D>* from) {
  const std::size_t lanes = hn::Lanes(d);
  return {hn::LoadU(d, from), hn::LoadU(d, from + lanes), hn::LoadU(d, from + 2 * lanes),
          hn::LoadU(d, from + 3 * lanes)};
}
template <class D>
HWY_INLINE Four<D> zeros(D d) {
  return {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
}
template <class D>
HWY_INLINE void store_four(D d, const Four<D>& of, hn::TFromD<D>* to) {
  const std::size_t lanes = hn::Lanes(d);
  hn::StoreU(of.v0, d, to);
  hn::StoreU(of.v1, d, to + lanes);
  hn::StoreU(of.v2, d, to + 2 * lanes);
  hn::StoreU(of.v3, d, to + 3 * lanes);
}
HWY_INLINE void add_product(F, const Four<F>& weights, hn::Vec<F> x, Four<F>& sums) {
  sums.v0 = hn::MulAdd(weights.v0, x, sums.v0);
  sums.v1 = hn::MulAdd(weights.v1, x, sums.v1);
  sums.v2 = hn::MulAdd(weights.v2, x, sums.v2);
  sums.v3 = hn::MulAdd(weights.v3, x, sums.v3);
}

// Brings what will be read some groups later: the hardware foresees too little of it.
template <class T>
HWY_INLINE void prefetch(const T* from) {
  constexpr std::size_t kAhead = 8 * kColumns;
  constexpr std::size_t kLine = 16;
  for (std::size_t i = 0; i < kColumns; i += kLine) __builtin_prefetch(from + kAhead + i, 0, 3);
}

// `from` is the first of 4 vectors of columns of a block, whose groups are 64 words of 32 bits.
void sum_f32(const float* from, const float* x, std::size_t groups, float* to) {
  const F d;
  Four<F> sums = zeros(d);
  for (std::size_t k = 0; k < groups; ++k, from += kColumns) {
    prefetch(from);
    add_product(d, load_four(d, from), hn::Set(d, x[k]), sums);
  }
  store_four(d, sums, to);
}

// A bfloat16 is the upper half of an f32. x is in f32, two to a group.
void sum_bf16(const std::uint32_t* from, const float* x, std::size_t groups, float* to) {
  const F d;
  const U du;
  const auto upper = hn::Set(du, 0xFFFF0000U);
  Four<F> even = zeros(d), odd = zeros(d);
  const auto low = [&](hn::Vec<U> v) { return hn::BitCast(d, hn::ShiftLeft<16>(v)); };
  const auto high = [&](hn::Vec<U> v) { return hn::BitCast(d, hn::And(v, upper)); };
  for (std::size_t k = 0; k < groups; ++k, from += kColumns) {
    prefetch(from);
    const Four<U> w = load_four(du, from);
    add_product(d, {low(w.v0), low(w.v1), low(w.v2), low(w.v3)}, hn::Set(d, x[2 * k]), even);
    add_product(d, {high(w.v0), high(w.v1), high(w.v2), high(w.v3)}, hn::Set(d, x[2 * k + 1]), odd);
  }
  store_four(
      d, {hn::Add(even.v0, odd.v0), hn::Add(even.v1, odd.v1), hn::Add(even.v2, odd.v2), hn::Add(even.v3, odd.v3)}, to);
}

// sum + Σ over the four bytes of each word, times inputs 0 and 2 (the halves of x02), 1 and 3.
HWY_INLINE hn::Vec<I> add_bytes([[maybe_unused]] I d, hn::Vec<I> word, hn::Vec<I> x02, hn::Vec<I> x13, hn::Vec<I> sum) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  // On x86 this operation adds neighbours; int8 products are for x86 alone (onednn::multiplies_natively).
  const hn::Repartition<std::int16_t, I> d16;
  const auto bytes = hn::BitCast(d16, word);
  const auto even = hn::ShiftRight<8>(hn::ShiftLeft<8>(bytes));
  const auto odd = hn::ShiftRight<8>(bytes);
  auto unused = hn::Zero(d);
  sum = hn::ReorderWidenMulAccumulate(d, even, hn::BitCast(d16, x02), sum, unused);
  return hn::ReorderWidenMulAccumulate(d, odd, hn::BitCast(d16, x13), sum, unused);
#else
  const auto add = [&](hn::Vec<I> byte, hn::Vec<I> x) { sum = hn::Add(sum, hn::Mul(hn::ShiftRight<24>(byte), x)); };
  const auto low = [](hn::Vec<I> x) { return hn::ShiftRight<16>(hn::ShiftLeft<16>(x)); };
  add(hn::ShiftLeft<24>(word), low(x02));
  add(hn::ShiftLeft<16>(word), low(x13));
  add(hn::ShiftLeft<8>(word), hn::ShiftRight<16>(x02));
  add(word, hn::ShiftRight<16>(x13));
  return sum;
#endif
}

// Whether bytes are multiplied and added by one instruction, which Highway 1.0 has no name for.
#if HWY_TARGET == HWY_AVX3_DL
constexpr bool kAddsBytes = true;
[[maybe_unused]] HWY_INLINE hn::Vec<I> add_bytes_at_once(hn::Vec<I> word, hn::Vec<I> x, hn::Vec<I> sum) {
  return hn::Vec<I>{_mm512_dpbusd_epi32(sum.raw, x.raw, word.raw)};
}
#else
constexpr bool kAddsBytes = false;
[[maybe_unused]] HWY_INLINE hn::Vec<I> add_bytes_at_once(hn::Vec<I>, hn::Vec<I>, hn::Vec<I> sum) { return sum; }
#endif

// x holds two words a group: its inputs 0 and 2, 1 and 3, in 16 bits each; where kAddsBytes, one word: all four.
void sum_i8(const std::int32_t* from, const std::int32_t* x, std::size_t groups, float* to) {
  const I d;
  Four<I> sums = zeros(d);
  for (std::size_t k = 0; k < groups; ++k, from += kColumns) {
    prefetch(from);
    const Four<I> w = load_four(d, from);
    if constexpr (kAddsBytes) {
      const auto all = hn::Set(d, x[k]);
      sums = {add_bytes_at_once(w.v0, all, sums.v0), add_bytes_at_once(w.v1, all, sums.v1),
              add_bytes_at_once(w.v2, all, sums.v2), add_bytes_at_once(w.v3, all, sums.v3)};
      continue;
    }
    const auto x02 = hn::Set(d, x[2 * k]);
    const auto x13 = hn::Set(d, x[2 * k + 1]);
    sums = {add_bytes(d, w.v0, x02, x13, sums.v0), add_bytes(d, w.v1, x02, x13, sums.v1),
            add_bytes(d, w.v2, x02, x13, sums.v2), add_bytes(d, w.v3, x02, x13, sums.v3)};
  }
  const F df;
  const Four<F> wide = {hn::ConvertTo(df, sums.v0), hn::ConvertTo(df, sums.v1), hn::ConvertTo(df, sums.v2),
                        hn::ConvertTo(df, sums.v3)};
  store_four(df, wide, to);
}

// Calls sum(words, sums) for each four vectors of columns.
template <class T, class Sum>
void for_each_four(const ColumnBlocks& w, std::int64_t begin, std::int64_t end, float* sums, const Sum& sum) {
  const std::size_t step = 4 * hn::Lanes(F());
  for (std::int64_t column = begin; column < end; column += ColumnBlocks::kColumns, sums += kColumns) {
    const std::byte* const block = w.data + static_cast<std::size_t>(column / ColumnBlocks::kColumns) * w.block_bytes;
    for (std::size_t c = 0; c < kColumns; c += step) sum(reinterpret_cast<const T*>(block) + c, sums + c);
  }
}

void prepare(const ColumnBlocks& w, const std::byte* x, std::byte* to) {
  const auto k = static_cast<std::size_t>(w.k);
  if (w.dtype == DType::kF32) {
    std::memcpy(to, x, k * sizeof(float));
  } else if (w.dtype == DType::kBF16) {
    auto* const wide = reinterpret_cast<float*>(to);
    const auto* const from = reinterpret_cast<const BFloat16*>(x);
    std::transform(from, from + k, wide, [](BFloat16 value) { return to_float(value); });
    wide[k] = 0;  // of a group that is not full
  } else if (kAddsBytes) {
    std::memcpy(to, x, k);
    std::memset(to + k, 0, 3);
  } else {
    auto* const pairs = reinterpret_cast<std::int32_t*>(to);
    const auto* const from = reinterpret_cast<const std::uint8_t*>(x);
    const auto at = [&](std::size_t i) { return i < k ? std::int32_t{from[i]} : 0; };
    for (std::size_t i = 0; i < k; i += 4) {
      pairs[i / 2] = at(i) | at(i + 2) << 16;
      pairs[i / 2 + 1] = at(i + 1) | at(i + 3) << 16;
    }
  }
}

void multiply(const ColumnBlocks& w, const std::byte* row, std::int64_t begin, std::int64_t end, float* sums) {
  const auto k = static_cast<std::size_t>(w.k);
  if (w.dtype == DType::kF32) {
    for_each_four<float>(w, begin, end, sums, [&](const float* from, float* to) {
      sum_f32(from, reinterpret_cast<const float*>(row), k, to);
    });
  } else if (w.dtype == DType::kBF16) {
    for_each_four<std::uint32_t>(w, begin, end, sums, [&](const std::uint32_t* words, float* to) {
      sum_bf16(words, reinterpret_cast<const float*>(row), (k + 1) / 2, to);
    });
  } else {
    for_each_four<std::int32_t>(w, begin, end, sums, [&](const std::int32_t* words, float* to) {
      sum_i8(words, reinterpret_cast<const std::int32_t*>(row), (k + 3) / 4, to);
    });
  }
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(prepare);
HWY_EXPORT(multiply);

}  // namespace

void prepare_row(const ColumnBlocks& weights, const std::byte* x, std::byte* to) {
  HWY_DYNAMIC_DISPATCH(prepare)(weights, x, to);
}

void multiply_row(const ColumnBlocks& weights, const std::byte* row, std::int64_t begin, std::int64_t end,
                  float* sums) {
  HWY_DYNAMIC_DISPATCH(multiply)(weights, row, begin, end, sums);
}

std::size_t matvec_row_bytes(std::int64_t k) { return whole_lines(static_cast<std::size_t>(k + 4) * sizeof(float)); }

}  // namespace weft
#endif  // HWY_ONCE
