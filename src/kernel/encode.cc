#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/encode.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "core/half.h"
#include "kernel/encode.h"
#include "kernel/simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

void encode_bf16(const float* x, std::uint16_t* y, std::int64_t count) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<std::uint16_t, D> d16;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const V value = hn::LoadU(d, x + i);
    const auto bits = hn::BitCast(du, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7FFF)), odd);
    const auto nan = hn::Set(du, 0x7FC00000);
    const auto kept = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(value)), nan, rounded);
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(hn::RebindToSigned<D>(), hn::ShiftRight<16>(kept))), d16, y + i);
  }
  for (; i < count; ++i) y[i] = to_bfloat16(x[i]).bits;
}

// Bytes of (x − low)·factor, which lies in [0, 255.5): adding 2^23 rounds to the nearest integer and leaves it in the
// lowest bits.
HWY_INLINE auto quantise(V x, V low, V factor) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const V shifted = hn::MulAdd(hn::Sub(x, low), factor, hn::Set(d, 0x1p23F));
  return hn::TruncateTo(hn::Rebind<std::uint8_t, D>(), hn::BitCast(du, shifted));
}

// The range of a row that comes vector by vector.
class Range {
 public:
  explicit Range(V first) : low_(first), high_(first), poison_(hn::Zero(D())) {}
  HWY_INLINE void add(V x) {
    low_ = hn::Min(low_, x);
    high_ = hn::Max(high_, x);
    poison_ = hn::MulAdd(x, hn::Zero(D()), poison_);
  }
  HWY_INLINE void add(const Range& other) {
    low_ = hn::Min(low_, other.low_);
    high_ = hn::Max(high_, other.high_);
    poison_ = hn::Add(poison_, other.poison_);
  }
  HWY_INLINE float low() const { return hn::GetLane(hn::MinOfLanes(D(), low_)); }
  HWY_INLINE float high() const { return hn::GetLane(hn::MaxOfLanes(D(), high_)); }
  HWY_INLINE bool finite() const { return hn::AllTrue(D(), hn::Eq(poison_, hn::Zero(D()))); }

 private:
  V low_, high_;
  V poison_;  // stays 0 unless something is NaN or infinite: min and max would lose a NaN
};

// Of normal numbers, the least: its reciprocal is finite.
constexpr float kLeastScale = std::numeric_limits<float>::min();

// A row of k elements to bytes, its range being known.
HWY_INLINE RowScale encode_row(const float* x, const Range& range, std::uint8_t* y, std::size_t k) {
  const D d;
  const hn::Rebind<std::uint8_t, D> d8;
  const std::size_t lanes = hn::Lanes(d);
  const float least = range.low();
  const float span = range.high() - least;
  const V low = hn::Set(d, least);
  const float scale = std::max(span * (1.0F / 255), kLeastScale);  // a NaN stays one
  const V factor = hn::Set(d, 1 / scale);
  std::size_t i = 0;
  for (; i + lanes <= k; i += lanes) hn::StoreU(quantise(hn::LoadU(d, x + i), low, factor), d8, y + i);
  if (i < k) {
    HWY_ALIGN std::uint8_t rest[hn::MaxLanes(D())];
    hn::Store(quantise(load_n(d, x + i, k - i), low, factor), d8, rest);
    std::copy_n(rest, k - i, y + i);
  }
  return {range.finite() ? scale : std::numeric_limits<float>::quiet_NaN(), least};
}

// `count` < Lanes elements, and the first of them in the lanes beyond: they change no range.
HWY_INLINE V load_rest(const float* x, std::size_t count) {
  const D d;
  return hn::IfThenElse(hn::FirstN(d, count), load_n(d, x, count), hn::Set(d, x[0]));
}

void encode_i8(const float* x, std::uint8_t* y, RowScale* scales, std::int64_t rows, std::size_t k) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::int64_t row = 0; row < rows; ++row, x += k, y += k) {
    Range even(hn::Set(d, x[0]));
    Range odd = even;
    std::size_t i = 0;
    for (; i + 2 * lanes <= k; i += 2 * lanes) {
      even.add(hn::LoadU(d, x + i));
      odd.add(hn::LoadU(d, x + i + lanes));
    }
    for (; i + lanes <= k; i += lanes) even.add(hn::LoadU(d, x + i));
    if (i < k) even.add(load_rest(x + i, k - i));
    even.add(odd);
    scales[row] = encode_row(x, even, y, k);
  }
}

// One row of a product's raw result.
class Decoder {
 public:
  Decoder(const Decoding& decoding, const RowScale& row)
      : of_(decoding), scale_(hn::Set(D(), row.scale)), low_(hn::Set(D(), row.low)) {}

  HWY_INLINE V operator()(const float* raw, std::size_t i) const {
    const D d;
    const V sums = hn::LoadU(d, of_.sums + i);
    const V start = of_.bias ? hn::MulAdd(low_, sums, hn::LoadU(d, of_.bias + i)) : hn::Mul(low_, sums);
    return activate(hn::MulAdd(hn::LoadU(d, raw + i), scale_, start));
  }
  HWY_INLINE V rest(const float* raw, std::size_t i, std::size_t count) const {
    const D d;
    const V bias = of_.bias ? load_n(d, of_.bias + i, count) : hn::Zero(d);
    const V start = hn::MulAdd(low_, load_n(d, of_.sums + i, count), bias);
    return activate(hn::MulAdd(load_n(d, raw + i, count), scale_, start));
  }

 private:
  HWY_INLINE V activate(V y) const {
    if (of_.activation != Activation::kSquaredRelu) return y;
    return hn::IfThenZeroElse(hn::Lt(y, hn::Zero(D())), hn::Mul(y, y));  // a NaN is not below 0
  }

  const Decoding& of_;
  V scale_, low_;
};

void decode(const Decoding& decoding, const RowScale* scales, const float* raw, float* y, std::int64_t rows) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const auto n = static_cast<std::size_t>(decoding.n);
  for (; rows > 0; --rows, ++scales, raw += n, y += n) {
    const Decoder decoded(decoding, *scales);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(decoded(raw, i), d, y + i);
    if (i < n) store_n(decoded.rest(raw, i, n - i), d, y + i, n - i);
  }
}

void recode(const Decoding& decoding, const RowScale* scales, const float* raw, std::uint8_t* y, RowScale* y_scales,
            std::int64_t rows, float* row) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const auto n = static_cast<std::size_t>(decoding.n);
  for (; rows > 0; --rows, ++scales, ++y_scales, raw += n, y += n) {
    const Decoder decoded(decoding, *scales);
    store_n(decoded.rest(raw, 0, 1), d, row, 1);
    Range even(hn::Set(d, row[0]));
    Range odd = even;
    std::size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      const V first = decoded(raw, i);
      const V second = decoded(raw, i + lanes);
      hn::StoreU(first, d, row + i);
      hn::StoreU(second, d, row + i + lanes);
      even.add(first);
      odd.add(second);
    }
    for (; i < n; i += lanes) {
      const std::size_t count = std::min(lanes, n - i);
      store_n(decoded.rest(raw, i, count), d, row + i, count);
      even.add(load_rest(row + i, count));
    }
    even.add(odd);
    *y_scales = encode_row(row, even, y, n);
  }
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(encode_bf16);
HWY_EXPORT(encode_i8);
HWY_EXPORT(decode);
HWY_EXPORT(recode);

class Encoder final : public RowKernel {
 public:
  Encoder(DType encoding, std::int64_t rows, std::int64_t k) : encoding_(encoding), rows_(rows), k_(k) {}

  std::string_view name() const override { return encoding_ == DType::kBF16 ? "hwy:encode_bf16" : "hwy:encode_i8"; }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int) const override { return true; }

  void run_rows(const RowArgs& args) const noexcept override {
    if (encoding_ == DType::kBF16) {
      HWY_DYNAMIC_DISPATCH(encode_bf16)(args.input(0), args.output<std::uint16_t>(), args.count() * k_);
    } else {
      HWY_DYNAMIC_DISPATCH(encode_i8)
      (args.input(0), args.output<std::uint8_t>(), args.output<RowScale>(1), args.count(),
       static_cast<std::size_t>(k_));
    }
  }

 private:
  DType encoding_;
  std::int64_t rows_, k_;
};

}  // namespace

std::unique_ptr<RowKernel> make_encoder(DType encoding, std::int64_t rows, std::int64_t k) {
  return std::make_unique<Encoder>(encoding, rows, k);
}

void decode_rows(const Decoding& decoding, const RowScale* scales, const float* raw, float* y, std::int64_t rows) {
  HWY_DYNAMIC_DISPATCH(decode)(decoding, scales, raw, y, rows);
}

void recode_rows(const Decoding& decoding, const RowScale* scales, const float* raw, std::uint8_t* y,
                 RowScale* y_scales, std::int64_t rows, float* row) {
  HWY_DYNAMIC_DISPATCH(recode)(decoding, scales, raw, y, y_scales, rows, row);
}

}  // namespace weft
#endif
