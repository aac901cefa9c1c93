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

// One row of k elements to bytes, scale and low.
HWY_INLINE void encode_row(const float* x, std::uint8_t* y, float* scale_and_low, std::size_t k) {
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
  const float low = hn::GetLane(hn::MinOfLanes(d, hn::Min(low0, low1)));
  const float high = hn::GetLane(hn::MaxOfLanes(d, hn::Max(high0, high1)));
  const float poison = hn::GetLane(hn::SumOfLanes(d, hn::Add(poison0, poison1)));
  const float range = high - low;
  scale_and_low[0] = range / 255 + poison;
  scale_and_low[1] = low;
  const V offset = hn::Set(d, low);
  const V factor = hn::Set(d, range > 0 ? 255 / range : 0.0F);
  const auto quantise = [&](V value) HWY_ATTR {
    return hn::DemoteTo(d8, hn::NearestInt(hn::Mul(hn::Sub(value, offset), factor)));
  };
  for (i = 0; i + lanes <= k; i += lanes) hn::StoreU(quantise(hn::LoadU(d, x + i)), d8, y + i);
  if (i == k) return;
  HWY_ALIGN std::uint8_t rest[hn::MaxLanes(D())];
  hn::Store(quantise(load_n(d, x + i, k - i)), d8, rest);
  std::copy_n(rest, k - i, y + i);
}

void encode_i8(const float* x, std::byte* y, std::int64_t rows, std::int64_t k, std::size_t row_bytes,
               std::size_t scale_offset) {
  for (; rows > 0; --rows, x += k, y += row_bytes) {
    encode_row(x, reinterpret_cast<std::uint8_t*>(y), reinterpret_cast<float*>(y + scale_offset),
               static_cast<std::size_t>(k));
  }
}

void decode(const std::byte* encoded, std::size_t row_bytes, float* y, std::int64_t rows, std::size_t n,
            const float* sums, const float* bias) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  for (; rows > 0; --rows, y += n, encoded += row_bytes) {
    const auto* const scale_and_low = reinterpret_cast<const float*>(encoded);
    const V scale = hn::Set(d, scale_and_low[0]);
    const V low = hn::Set(d, scale_and_low[1]);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      const V start = bias ? hn::MulAdd(low, hn::LoadU(d, sums + i), hn::LoadU(d, bias + i))
                           : hn::Mul(low, hn::LoadU(d, sums + i));
      hn::StoreU(hn::MulAdd(hn::LoadU(d, y + i), scale, start), d, y + i);
    }
    if (i == n) continue;
    const std::size_t rest = n - i;
    const V start = hn::MulAdd(low, load_n(d, sums + i, rest), bias ? load_n(d, bias + i, rest) : hn::Zero(d));
    store_n(hn::MulAdd(load_n(d, y + i, rest), scale, start), d, y + i, rest);
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

std::size_t round_up(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

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
      (args.input(0), args.output<std::byte>(), args.count(), k_, encoded_row_bytes(encoding_, k_),
       encoded_scale_offset(k_));
    }
  }

 private:
  DType encoding_;
  std::int64_t rows_, k_;
};

}  // namespace

std::size_t encoded_scale_offset(std::int64_t k) { return round_up(static_cast<std::size_t>(k)); }

std::size_t encoded_row_bytes(DType encoding, std::int64_t k) {
  return encoding == DType::kI8 ? encoded_scale_offset(k) + 64 : size_of(encoding) * static_cast<std::size_t>(k);
}

std::unique_ptr<RowKernel> make_encoder(DType encoding, std::int64_t rows, std::int64_t k) {
  return std::make_unique<Encoder>(encoding, rows, k);
}

void decode_rows(const std::byte* encoded, std::int64_t k, float* y, std::int64_t rows, std::int64_t n,
                 const float* sums, const float* bias) {
  HWY_DYNAMIC_DISPATCH(decode)
  (encoded + encoded_scale_offset(k), encoded_row_bytes(DType::kI8, k), y, rows, static_cast<std::size_t>(n), sums,
   bias);
}

}  // namespace weft
#endif
