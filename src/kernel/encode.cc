#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/encode.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

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

// One row of k elements to bytes, scale and low.
HWY_INLINE RowScale encode_row(const float* x, std::uint8_t* y, std::size_t k) {
  const D d;
  const hn::Rebind<std::uint8_t, D> d8;
  const std::size_t lanes = hn::Lanes(d);
  const V zero = hn::Zero(d);
  V low0 = hn::Set(d, x[0]), low1 = low0;
  V high0 = low0, high1 = low0;
  V poison0 = zero, poison1 = zero;  // stays 0 unless something is NaN or infinite: min and max would lose a NaN
  std::size_t i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    const V a = hn::LoadU(d, x + i);
    const V b = hn::LoadU(d, x + i + lanes);
    low0 = hn::Min(low0, a);
    low1 = hn::Min(low1, b);
    high0 = hn::Max(high0, a);
    high1 = hn::Max(high1, b);
    poison0 = hn::MulAdd(a, zero, poison0);
    poison1 = hn::MulAdd(b, zero, poison1);
  }
  for (; i < k; i += lanes) {
    const std::size_t count = k - i < lanes ? k - i : lanes;
    const V loaded = count == lanes ? hn::LoadU(d, x + i) : load_n(d, x + i, count);
    const V a = count == lanes ? loaded : hn::IfThenElse(hn::FirstN(d, count), loaded, hn::Set(d, x[0]));
    low0 = hn::Min(low0, a);
    high0 = hn::Max(high0, a);
    poison0 = hn::MulAdd(a, zero, poison0);
  }
  const float least = hn::GetLane(hn::MinOfLanes(d, hn::Min(low0, low1)));
  const float most = hn::GetLane(hn::MaxOfLanes(d, hn::Max(high0, high1)));
  const float poison = hn::GetLane(hn::SumOfLanes(d, hn::Add(poison0, poison1)));
  const float range = most - least;
  const RowScale row{range * (1.0F / 255) + poison, least};
  const V low = hn::Set(d, least);
  const V factor = hn::Set(d, range > 0 ? 255 / range : 0.0F);
  for (i = 0; i + lanes <= k; i += lanes) hn::StoreU(quantise(hn::LoadU(d, x + i), low, factor), d8, y + i);
  if (i == k) return row;
  HWY_ALIGN std::uint8_t rest[hn::MaxLanes(D())];
  hn::Store(quantise(load_n(d, x + i, k - i), low, factor), d8, rest);
  std::copy_n(rest, k - i, y + i);
  return row;
}

void encode_i8(const float* x, std::uint8_t* y, RowScale* scales, std::int64_t rows, std::size_t k) {
  for (std::int64_t row = 0; row < rows; ++row, x += k, y += k) scales[row] = encode_row(x, y, k);
}

void decode(const RowScale* scales, const float* raw, float* y, std::int64_t rows, std::size_t n, const float* sums,
            const float* bias) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  for (; rows > 0; --rows, ++scales, raw += n, y += n) {
    const V scale = hn::Set(d, scales->scale);
    const V low = hn::Set(d, scales->low);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      const V start =
          bias ? hn::MulAdd(low, hn::LoadU(d, sums + i), hn::LoadU(d, bias + i)) : hn::Mul(low, hn::LoadU(d, sums + i));
      hn::StoreU(hn::MulAdd(hn::LoadU(d, raw + i), scale, start), d, y + i);
    }
    if (i == n) continue;
    const std::size_t rest = n - i;
    const V start = hn::MulAdd(low, load_n(d, sums + i, rest), bias ? load_n(d, bias + i, rest) : hn::Zero(d));
    store_n(hn::MulAdd(load_n(d, raw + i, rest), scale, start), d, y + i, rest);
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

void decode_rows(const RowScale* scales, const float* raw, float* y, std::int64_t rows, std::int64_t n,
                 const float* sums, const float* bias) {
  HWY_DYNAMIC_DISPATCH(decode)(scales, raw, y, rows, static_cast<std::size_t>(n), sums, bias);
}

}  // namespace weft
#endif
