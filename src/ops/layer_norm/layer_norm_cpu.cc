#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/layer_norm/layer_norm_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <cmath>

#include "kernel/simd.h"
#include "ops/layer_norm/layer_norm.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
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

// x and y may be the same.
void layer_norm_rows(const float* x, const float* gamma, const float* beta, float* y, std::int64_t rows, std::size_t c,
                     float eps) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const float count = static_cast<float>(c);
  for (; rows > 0; --rows, x += c, y += c) {
    const float mean = sum_of_differences<false>(x, c, 0) / count;
    const float variance = sum_of_differences<true>(x, c, mean) / count;
    const V center = hn::Set(d, mean);
    const V factor = hn::Set(d, 1 / std::sqrt(variance + eps));
    const auto normalise = [&](V value, V scale, V shift)
                               HWY_ATTR { return hn::MulAdd(hn::Mul(hn::Sub(value, center), factor), scale, shift); };
    std::size_t i = 0;
    for (; i + lanes <= c; i += lanes) {
      hn::StoreU(normalise(hn::LoadU(d, x + i), hn::LoadU(d, gamma + i), hn::LoadU(d, beta + i)), d, y + i);
    }
    if (i == c) continue;
    const std::size_t rest = c - i;
    store_n(normalise(load_n(d, x + i, rest), load_n(d, gamma + i, rest), load_n(d, beta + i, rest)), d, y + i, rest);
  }
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
  LayerNormKernel(const LayerNorm& attributes, const Shape& x) : eps_(attributes.eps), c_(x[-1]), rows_(row_count(x)) {}

  std::string_view name() const override { return "hwy:layer_norm"; }
  bool may_overwrite(int i) const override { return i == 0; }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int i) const override { return i == 0; }

  void run_rows(const RowArgs& args) const noexcept override {
    HWY_DYNAMIC_DISPATCH(layer_norm_rows)
    (args.input(0), args.input(1), args.input(2), args.output(), args.count(), static_cast<std::size_t>(c_), eps_);
  }

 private:
  float eps_;
  std::int64_t c_, rows_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const LayerNorm& attributes, const KernelRequest& request) {
  return std::make_unique<LayerNormKernel>(attributes, request.in[0].shape);
}

}  // namespace weft
#endif
