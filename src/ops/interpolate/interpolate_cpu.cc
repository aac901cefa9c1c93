#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/interpolate/interpolate_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kernel/simd.h"
#include "ops/interpolate/interpolate.h"

#ifndef WEFT_INTERPOLATE_TAPS_
#define WEFT_INTERPOLATE_TAPS_
namespace weft {
namespace {

constexpr std::size_t kTaps = 4;  // bilinear leaves two of them at weight 0

// Where one row or column of the result comes from.
struct Taps {
  std::array<std::int64_t, kTaps> position;
  std::array<float, kTaps> weight;
};

}  // namespace
}  // namespace weft
#endif

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// y[i] = Σ_k weight[k] · x[position[k] · stride + i]
void weighted_sum(const float* x, const Taps& taps, std::int64_t stride, float* y, std::size_t count) {
  const hn::ScalableTag<float> d;
  const std::size_t lanes = hn::Lanes(d);
  const float* x0 = x + taps.position[0] * stride;
  const float* x1 = x + taps.position[1] * stride;
  const float* x2 = x + taps.position[2] * stride;
  const float* x3 = x + taps.position[3] * stride;
  const auto w0 = hn::Set(d, taps.weight[0]);
  const auto w1 = hn::Set(d, taps.weight[1]);
  const auto w2 = hn::Set(d, taps.weight[2]);
  const auto w3 = hn::Set(d, taps.weight[3]);
  const auto sum = [&](auto v0, auto v1, auto v2, auto v3)
                       HWY_ATTR { return hn::MulAdd(v0, w0, hn::MulAdd(v1, w1, hn::MulAdd(v2, w2, hn::Mul(v3, w3)))); };
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(sum(hn::LoadU(d, x0 + i), hn::LoadU(d, x1 + i), hn::LoadU(d, x2 + i), hn::LoadU(d, x3 + i)), d, y + i);
  }
  if (i == count) return;
  const std::size_t rest = count - i;
  store_n(sum(load_n(d, x0 + i, rest), load_n(d, x1 + i, rest), load_n(d, x2 + i, rest), load_n(d, x3 + i, rest)), d,
          y + i, rest);
}

// A row of the result, [out_w,C], of an image [H,W,C]: first down its columns to `line` [W,C], then along it.
void interpolate_row(const float* image, const Taps& row, std::int64_t width, std::span<const Taps> columns,
                     std::int64_t channels, float* line, float* y) {
  weighted_sum(image, row, width * channels, line, static_cast<std::size_t>(width * channels));
  for (const Taps& column : columns) {
    weighted_sum(line, column, channels, y, static_cast<std::size_t>(channels));
    y += channels;
  }
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(interpolate_row);

std::array<double, kTaps> weights_at(InterpolateMode mode, double t) {
  if (mode == InterpolateMode::kBilinear) return {0, 1 - t, t, 0};
  constexpr double kA = -0.75;
  const auto near = [](double d) { return ((kA + 2) * d - (kA + 3)) * d * d + 1; };
  const auto far = [](double d) { return ((kA * d - 5 * kA) * d + 8 * kA) * d - 4 * kA; };
  return {far(t + 1), near(t), near(1 - t), far(2 - t)};
}

std::vector<Taps> taps_of(InterpolateMode mode, std::int64_t in, std::int64_t out) {
  std::vector<Taps> result(static_cast<std::size_t>(out));
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const double source = (static_cast<double>(i) + 0.5) * scale - 0.5;
    const double floor = std::floor(source);
    const auto weights = weights_at(mode, source - floor);
    for (std::size_t k = 0; k < kTaps; ++k) {
      const auto position = static_cast<std::int64_t>(floor) - 1 + static_cast<std::int64_t>(k);
      result[i].position[k] = std::clamp<std::int64_t>(position, 0, in - 1);
      result[i].weight[k] = static_cast<float>(weights[k]);
    }
  }
  return result;
}

class InterpolateKernel final : public Kernel {
 public:
  InterpolateKernel(const Interpolate& attributes, const KernelRequest& request)
      : images_(request.in[0].shape[0]),
        height_(request.in[0].shape[1]),
        width_(request.in[0].shape[2]),
        channels_(request.in[0].shape[3]),
        rows_(taps_of(attributes.mode, height_, attributes.out_h)),
        columns_(taps_of(attributes.mode, width_, attributes.out_w)),
        slots_(static_cast<std::size_t>(request.threads)) {}

  std::string_view name() const override { return "hwy:interpolate"; }
  std::size_t scratch_bytes() const override { return static_cast<std::size_t>(line()) * sizeof(float) * slots_; }

  void run(const KernelArgs& args) const noexcept override {
    const auto out_h = static_cast<std::int64_t>(rows_.size());
    const std::int64_t out_row = static_cast<std::int64_t>(columns_.size()) * channels_;
    if (out_row == 0) return;
    const std::int64_t grain = std::max<std::int64_t>(1, kTileElements / out_row);
    args.workers.parallel_for(images_ * out_h, grain, [&](std::int64_t begin, std::int64_t end) {
      float* scratch = reinterpret_cast<float*>(args.scratch) + args.workers.index() * line();
      for (std::int64_t i = begin; i < end; ++i) {
        const float* image = args.input(0) + i / out_h * height_ * width_ * channels_;
        HWY_DYNAMIC_DISPATCH(interpolate_row)
        (image, rows_[static_cast<std::size_t>(i % out_h)], width_, columns_, channels_, scratch,
         args.output() + i * out_row);
      }
    });
  }

 private:
  static constexpr std::int64_t kTileElements = 4096;

  // Floats of one row of x, rounded up to whole cache lines: threads do not share them.
  std::int64_t line() const { return (width_ * channels_ + 15) / 16 * 16; }

  std::int64_t images_, height_, width_, channels_;
  std::vector<Taps> rows_, columns_;
  std::size_t slots_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Interpolate& attributes, const KernelRequest& request) {
  return std::make_unique<InterpolateKernel>(attributes, request);
}

}  // namespace weft
#endif
