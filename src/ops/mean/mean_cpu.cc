#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/mean/mean_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>

#include "kernel/simd.h"
#include "ops/mean/mean.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// sum[c] = Σ over rows of x[row][c], where a row has `columns` elements.
void sum_rows(const float* x, std::int64_t rows, std::size_t columns, float* sum) {
  const hn::ScalableTag<float> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t c = 0;
  for (; c + 4 * lanes <= columns; c += 4 * lanes) {
    auto sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    const float* from = x + c;
    for (std::int64_t row = 0; row < rows; ++row, from += columns) {
      sum0 = hn::Add(sum0, hn::LoadU(d, from));
      sum1 = hn::Add(sum1, hn::LoadU(d, from + lanes));
      sum2 = hn::Add(sum2, hn::LoadU(d, from + 2 * lanes));
      sum3 = hn::Add(sum3, hn::LoadU(d, from + 3 * lanes));
    }
    hn::StoreU(sum0, d, sum + c);
    hn::StoreU(sum1, d, sum + c + lanes);
    hn::StoreU(sum2, d, sum + c + 2 * lanes);
    hn::StoreU(sum3, d, sum + c + 3 * lanes);
  }
  for (; c < columns; c += lanes) {
    const std::size_t count = std::min(lanes, columns - c);
    auto total = hn::Zero(d);
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* from = x + static_cast<std::size_t>(row) * columns + c;
      total = hn::Add(total, count == lanes ? hn::LoadU(d, from) : load_n(d, from, count));
    }
    if (count == lanes) {
      hn::StoreU(total, d, sum + c);
    } else {
      store_n(total, d, sum + c, count);
    }
  }
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(sum_rows);

// x as [outer,n,inner], the axis n cut into blocks: first the sums of all blocks, then the sums of these.
class MeanKernel final : public Kernel {
 public:
  MeanKernel(const Shape& x, int axis) : n_(x[axis]), blocks_((n_ + kBlock - 1) / kBlock) {
    for (int i = 0; i < axis; ++i) outer_ *= x[i];
    for (int i = axis + 1; i < x.rank(); ++i) inner_ *= x[i];
  }

  std::string_view name() const override { return "hwy:mean"; }
  std::size_t scratch_bytes() const override {
    return static_cast<std::size_t>(outer_ * blocks_ * inner_) * sizeof(float);
  }

  void run(const KernelArgs& args) const noexcept override {
    auto* sums = reinterpret_cast<float*>(args.scratch);  // [outer,blocks,inner]
    const std::int64_t grain = std::max<std::int64_t>(1, kTileElements / (kBlock * std::max<std::int64_t>(1, inner_)));
    args.workers.parallel_for(outer_ * blocks_, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = i % blocks_ * kBlock;
        const std::int64_t rows = std::min(kBlock, n_ - first);
        HWY_DYNAMIC_DISPATCH(sum_rows)
        (args.input(0) + (i / blocks_ * n_ + first) * inner_, rows, static_cast<std::size_t>(inner_),
         sums + i * inner_);
      }
    });
    args.workers.parallel_for(outer_ * inner_, kTileElements / kBlock, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const float* from = sums + i / inner_ * blocks_ * inner_ + i % inner_;
        double sum = 0;
        for (std::int64_t block = 0; block < blocks_; ++block) sum += static_cast<double>(from[block * inner_]);
        args.output()[i] = static_cast<float>(sum / static_cast<double>(n_));
      }
    });
  }

 private:
  static constexpr std::int64_t kBlock = 64;
  static constexpr std::int64_t kTileElements = 16384;

  std::int64_t n_, blocks_;
  std::int64_t outer_ = 1, inner_ = 1;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Mean& attributes, const KernelRequest& request) {
  const Shape& x = request.in[0].shape;
  return std::make_unique<MeanKernel>(x, attributes.axis < 0 ? attributes.axis + x.rank() : attributes.axis);
}

}  // namespace weft
#endif
