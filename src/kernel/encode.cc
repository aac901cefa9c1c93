#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/encode.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include "core/half.h"
#include "kernel/encode-inl.h"
#include "kernel/encode.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

void encode_bf16(const float* x, std::uint16_t* y, std::int64_t count) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) store_bf16(hn::LoadU(d, x + i), hn::LoadU(d, x + i + lanes), d, y + i);
  for (; i + lanes <= count; i += lanes) store_bf16(hn::LoadU(d, x + i), d, y + i);
  for (; i < count; ++i) y[i] = to_bfloat16(x[i]).bits;
}

void encode_i8(const float* x, std::uint8_t* y, RowScale* scales, std::int64_t rows, std::size_t k) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::int64_t row = 0; row < rows; ++row, x += k, y += k) {
    Range even, odd;
    std::size_t i = 0;
    for (; i + 2 * lanes <= k; i += 2 * lanes) {
      even.add(hn::LoadU(d, x + i));
      odd.add(hn::LoadU(d, x + i + lanes));
    }
    for (; i + lanes <= k; i += lanes) even.add(hn::LoadU(d, x + i));
    if (i < k) even.add_n(load_n(d, x + i, k - i), k - i);
    even.add(odd);
    scales[row] = encode_row(x, even, y, k);
  }
}

// One row of a product's raw result.
class Decoder {
 public:
  Decoder(const Decoding& decoding, const RowScale& row)
      : sums_(decoding.sums),
        bias_(decoding.bias),
        squares_(decoding.activation == Activation::kSquaredRelu),
        scale_(hn::Set(D(), row.scale)),
        low_(hn::Set(D(), row.low)) {}

  HWY_INLINE V operator()(const float* raw, std::size_t i) const {
    const D d;
    const V sums = hn::LoadU(d, sums_ + i);
    const V start = bias_ ? hn::MulAdd(low_, sums, hn::LoadU(d, bias_ + i)) : hn::Mul(low_, sums);
    return activate(hn::MulAdd(hn::LoadU(d, raw + i), scale_, start));
  }
  HWY_INLINE V rest(const float* raw, std::size_t i, std::size_t count) const {
    const D d;
    const V bias = bias_ ? load_n(d, bias_ + i, count) : hn::Zero(d);
    const V start = hn::MulAdd(low_, load_n(d, sums_ + i, count), bias);
    return activate(hn::MulAdd(load_n(d, raw + i, count), scale_, start));
  }

 private:
  HWY_INLINE V activate(V y) const {
    if (!squares_) return y;
    return hn::IfThenZeroElse(hn::Lt(y, hn::Zero(D())), hn::Mul(y, y));  // a NaN is not below 0
  }

  const float* sums_;
  const float* bias_;
  bool squares_;
  V scale_, low_;
};

template <DType kEncoding>
HWY_INLINE void decode_to(RowWriter<kEncoding> y, const Decoding& decoding, const RowScale* scales, const float* raw,
                          std::int64_t rows) {
  const std::size_t lanes = hn::Lanes(D());
  const auto n = static_cast<std::size_t>(decoding.n);
  for (; rows > 0; --rows, ++scales, raw += n) {
    const Decoder decoded(decoding, *scales);
    std::size_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) y.put(decoded(raw, i), decoded(raw, i + lanes), i);
    for (; i + lanes <= n; i += lanes) y.put(decoded(raw, i), i);
    if (i < n) y.put_n(decoded.rest(raw, i, n - i), i, n - i);
    y.end_row();
  }
}

void decode(const Decoding& decoding, const RowScale* scales, const float* raw, const EncodedRows& y,
            std::int64_t rows) {
  with_row_writer(y, static_cast<std::size_t>(decoding.n),
                  [&](auto writer) HWY_ATTR { decode_to(writer, decoding, scales, raw, rows); });
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

void decode_rows(const Decoding& decoding, const RowScale* scales, const float* raw, const EncodedRows& y,
                 std::int64_t rows) {
  HWY_DYNAMIC_DISPATCH(decode)(decoding, scales, raw, y, rows);
}

}  // namespace weft
#endif
