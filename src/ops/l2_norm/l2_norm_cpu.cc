#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/l2_norm/l2_norm_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "kernel/encode-inl.h"
#include "kernel/simd.h"
#include "ops/l2_norm/l2_norm.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// Squares of numbers beyond 2^±60 leave the range of f32: such parts are summed again as parts of their largest
// element.
float length_of(const float* x, std::size_t c) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const auto sum_of_squares = [&](float factor) HWY_ATTR {
    const V f = hn::Set(d, factor);
    V sum = hn::Zero(d);
    std::size_t i = 0;
    for (; i + lanes <= c; i += lanes) {
      const V value = hn::Mul(f, hn::LoadU(d, x + i));
      sum = hn::MulAdd(value, value, sum);
    }
    if (i < c) {
      const V value = hn::Mul(f, load_n(d, x + i, c - i));
      sum = hn::MulAdd(value, value, sum);
    }
    return hn::GetLane(hn::SumOfLanes(d, sum));
  };
  const float squares = sum_of_squares(1);
  if (squares > 0x1p-100F && squares < 0x1p120F) return std::sqrt(squares);
  float largest = 0;
  for (std::size_t i = 0; i < c; ++i) largest = std::max(largest, std::abs(x[i]));
  if (!(largest > 0) || !std::isfinite(largest)) return std::sqrt(squares);
  // A power of two: exact, and finite for subnormal numbers as well.
  const int exponent = std::clamp(std::ilogb(largest), -126, 126);
  return std::ldexp(std::sqrt(sum_of_squares(std::ldexp(1.0F, -exponent))), exponent);
}

// x and f32 rows of y may be the same.
template <DType kEncoding>
HWY_INLINE void normalise_rows(RowWriter<kEncoding> y, const float* x, std::int64_t rows, std::size_t heads,
                               std::size_t c, float eps) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  for (; rows > 0; --rows) {
    for (std::size_t first = 0; first < heads * c; first += c, x += c) {
      const V length = hn::Set(d, std::max(length_of(x, c), eps));
      std::size_t i = 0;
      for (; i + lanes <= c; i += lanes) y.put(hn::Div(hn::LoadU(d, x + i), length), first + i);
      if (i < c) y.put_n(hn::Div(load_n(d, x + i, c - i), length), first + i, c - i);
    }
    y.end_row();
  }
}

void l2_norm_rows(const float* x, const EncodedRows& y, std::int64_t rows, std::size_t heads, std::size_t c,
                  float eps) {
  with_row_writer(y, heads * c, [&](auto writer) HWY_ATTR { normalise_rows(writer, x, rows, heads, c, eps); });
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(l2_norm_rows);

class L2NormKernel final : public RowKernel {
 public:
  L2NormKernel(const L2Norm& attributes, const Shape& x)
      : heads_(attributes.heads), eps_(attributes.eps), c_(x[-1]), rows_(row_count(x)), output_(c_) {}

  std::string_view name() const override { return "hwy:l2_norm"; }
  bool may_overwrite(int) const override { return output_.encoding() == DType::kF32; }
  bool encode_output(DType encoding) override { return output_.encode(encoding); }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int) const override { return true; }
  std::size_t row_scratch_bytes() const override { return output_.scratch_bytes(); }

  void run_rows(const RowArgs& args) const noexcept override {
    HWY_DYNAMIC_DISPATCH(l2_norm_rows)
    (args.input(0), output_.at(args), args.count(), static_cast<std::size_t>(heads_),
     static_cast<std::size_t>(c_ / heads_), eps_);
  }

 private:
  int heads_;
  float eps_;
  std::int64_t c_, rows_;
  RowOutput output_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const L2Norm& attributes, const KernelRequest& request) {
  return std::make_unique<L2NormKernel>(attributes, request.in[0].shape);
}

}  // namespace weft
#endif
