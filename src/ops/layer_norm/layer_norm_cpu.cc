#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/layer_norm/layer_norm_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "kernel/encode-inl.h"
#include "kernel/simd.h"
#include "ops/layer_norm/layer_norm.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// Σ over the row of x − shift, or of its square; in four chains of sums, so that an addition need not wait for the
// last.
template <bool kSquared>
float sum_of_differences(const float* x, std::size_t c, float shift) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const V center = hn::Set(d, shift);
  const auto accumulate = [&](V sum, V value) HWY_ATTR {
    const V difference = hn::Sub(value, center);
    return kSquared ? hn::MulAdd(difference, difference, sum) : hn::Add(sum, difference);
  };
  V sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  std::size_t i = 0;
  for (; i + 4 * lanes <= c; i += 4 * lanes) {
    sum0 = accumulate(sum0, hn::LoadU(d, x + i));
    sum1 = accumulate(sum1, hn::LoadU(d, x + i + lanes));
    sum2 = accumulate(sum2, hn::LoadU(d, x + i + 2 * lanes));
    sum3 = accumulate(sum3, hn::LoadU(d, x + i + 3 * lanes));
  }
  for (; i + lanes <= c; i += lanes) sum0 = accumulate(sum0, hn::LoadU(d, x + i));
  if (i < c) sum1 = hn::IfThenElse(hn::FirstN(d, c - i), accumulate(sum1, load_n(d, x + i, c - i)), sum1);
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
}

// Rows whose means and variances are found before the first of them is written: the sums of one row wait for each
// other, those of several do not.
constexpr std::int64_t kTogether = 8;

// x and f32 rows of y may be the same.
template <DType kEncoding>
HWY_INLINE void normalise_rows(RowWriter<kEncoding> y, const float* x, const float* gamma, const float* beta,
                               std::int64_t rows, std::size_t c, float eps) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const float count = static_cast<float>(c);
  float means[kTogether], factors[kTogether];
  for (std::int64_t begin = 0; begin < rows; begin += kTogether) {
    const std::int64_t together = std::min(kTogether, rows - begin);
    const float* from = x;
    for (std::int64_t row = 0; row < together; ++row, from += c) {
      means[row] = sum_of_differences<false>(from, c, 0) / count;
    }
    from = x;
    for (std::int64_t row = 0; row < together; ++row, from += c) {
      factors[row] = 1 / std::sqrt(sum_of_differences<true>(from, c, means[row]) / count + eps);
    }
    for (std::int64_t row = 0; row < together; ++row, x += c) {
      const V center = hn::Set(d, means[row]);
      const V factor = hn::Set(d, factors[row]);
      const auto normalise = [&](V value, V scale, V shift)
                                 HWY_ATTR { return hn::MulAdd(hn::Mul(hn::Sub(value, center), factor), scale, shift); };
      const auto normalised = [&](std::size_t at) HWY_ATTR {
        return normalise(hn::LoadU(d, x + at), hn::LoadU(d, gamma + at), hn::LoadU(d, beta + at));
      };
      std::size_t i = 0;
      for (; i + 2 * lanes <= c; i += 2 * lanes) y.put(normalised(i), normalised(i + lanes), i);
      for (; i + lanes <= c; i += lanes) y.put(normalised(i), i);
      if (i < c) {
        const std::size_t rest = c - i;
        y.put_n(normalise(load_n(d, x + i, rest), load_n(d, gamma + i, rest), load_n(d, beta + i, rest)), i, rest);
      }
      y.end_row();
    }
  }
}

void layer_norm_rows(const float* x, const float* gamma, const float* beta, const EncodedRows& y, std::int64_t rows,
                     std::size_t c, float eps) {
  with_row_writer(y, c, [&](auto writer) HWY_ATTR { normalise_rows(writer, x, gamma, beta, rows, c, eps); });
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(layer_norm_rows);

class LayerNormKernel final : public RowKernel {
 public:
  LayerNormKernel(const LayerNorm& attributes, const Shape& x)
      : eps_(attributes.eps), c_(x[-1]), rows_(row_count(x)), output_(c_) {}

  std::string_view name() const override { return "hwy:layer_norm"; }
  bool may_overwrite(int i) const override { return i == 0 && output_.encoding() == DType::kF32; }
  bool encode_output(DType encoding) override { return output_.encode(encoding); }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int i) const override { return i == 0; }
  std::size_t row_scratch_bytes() const override { return output_.scratch_bytes(); }

  void run_rows(const RowArgs& args) const noexcept override {
    HWY_DYNAMIC_DISPATCH(layer_norm_rows)
    (args.input(0), args.input(1), args.input(2), output_.at(args), args.count(), static_cast<std::size_t>(c_), eps_);
  }

 private:
  float eps_;
  std::int64_t c_, rows_;
  RowOutput output_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const LayerNorm& attributes, const KernelRequest& request) {
  return std::make_unique<LayerNormKernel>(attributes, request.in[0].shape);
}

}  // namespace weft
#endif
