#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/interpolate/interpolate_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernel/simd.h"
#include "ops/interpolate/interpolate.h"

#ifndef WEFT_INTERPOLATE_TAPS_
#define WEFT_INTERPOLATE_TAPS_
namespace weft {
namespace {

// Where one row or column of the result comes from.
struct Taps {
  std::vector<std::int64_t> position;
  std::vector<float> weight;

  void add(std::int64_t p, double w) {
    position.push_back(p);
    weight.push_back(static_cast<float>(w));
  }
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
  const auto sum = [&](auto load) HWY_ATTR {
    auto total = hn::Zero(d);
    for (std::size_t k = 0; k < taps.weight.size(); ++k) {
      total = hn::MulAdd(hn::Set(d, taps.weight[k]), load(x + taps.position[k] * stride), total);
    }
    return total;
  };
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(sum([&](const float* from) HWY_ATTR { return hn::LoadU(d, from + i); }), d, y + i);
  }
  if (i == count) return;
  const std::size_t rest = count - i;
  store_n(sum([&](const float* from) HWY_ATTR { return load_n(d, from + i, rest); }), d, y + i, rest);
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

double cubic_near(double a, double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; }       // |d| ≤ 1
double cubic_far(double a, double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; }  // 1 ≤ |d| ≤ 2

Taps neighbours(InterpolateMode mode, double source, std::int64_t in) {
  const double floor = std::floor(source);
  const double t = source - floor;
  constexpr double kA = -0.75;
  const std::array<double, 4> weights =
      mode == InterpolateMode::kBilinear
          ? std::array<double, 4>{0, 1 - t, t, 0}
          : std::array<double, 4>{cubic_far(kA, t + 1), cubic_near(kA, t), cubic_near(kA, 1 - t), cubic_far(kA, 2 - t)};
  Taps taps;
  for (std::int64_t k = 0; k < 4; ++k) {
    taps.add(std::clamp<std::int64_t>(static_cast<std::int64_t>(floor) - 1 + k, 0, in - 1),
             weights[static_cast<std::size_t>(k)]);
  }
  return taps;
}

// All positions nearer than 2·width.
Taps support(double source, double width, std::int64_t in) {
  const auto begin = std::max<std::int64_t>(static_cast<std::int64_t>(std::ceil(source - 2 * width)), 0);
  const auto end = std::min<std::int64_t>(static_cast<std::int64_t>(std::floor(source + 2 * width)) + 1, in);
  std::vector<double> weights;
  double sum = 0;
  for (std::int64_t p = begin; p < end; ++p) {
    const double d = std::abs(static_cast<double>(p) - source) / width;
    sum += weights.emplace_back(d <= 1 ? cubic_near(-0.5, d) : cubic_far(-0.5, d));
  }
  Taps taps;
  for (std::int64_t p = begin; p < end; ++p) taps.add(p, weights[static_cast<std::size_t>(p - begin)] / sum);
  return taps;
}

std::vector<Taps> taps_of(InterpolateMode mode, std::int64_t in, std::int64_t out) {
  std::vector<Taps> result;
  const double step = static_cast<double>(in) / static_cast<double>(out);
  for (std::int64_t i = 0; i < out; ++i) {
    const double source = (static_cast<double>(i) + 0.5) * step - 0.5;
    result.push_back(mode == InterpolateMode::kBicubicAntialias ? support(source, std::max(step, 1.0), in)
                                                                : neighbours(mode, source, in));
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
