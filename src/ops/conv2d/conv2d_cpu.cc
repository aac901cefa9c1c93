#include <algorithm>

#include "core/format.h"
#include "kernel/empty_kernel.h"
#include "kernel/gathered_product.h"
#include "ops/conv2d/conv2d.h"

namespace weft {
namespace {

// [Cout,Cin,kh,kw] → [Cout,kh·kw·Cin]: the order of the elements around a pixel.
Tensor pixel_by_pixel(const Tensor& weight) {
  const Shape& shape = weight.shape();
  const std::int64_t taps = shape[2] * shape[3];
  Tensor result(DType::kF32, {shape[0], taps * shape[1]});
  const auto from = weight.data<float>();
  const auto to = result.mutable_data<float>();
  for (std::size_t i = 0; i < from.size(); ++i) {
    const auto flat = static_cast<std::int64_t>(i);
    const std::int64_t row = flat / (taps * shape[1]);
    const std::int64_t channel = flat / taps % shape[1];
    to[static_cast<std::size_t>((row * taps + flat % taps) * shape[1] + channel)] = from[i];
  }
  return result;
}

// Tile by tile: what the kernel covers at some places becomes rows of a matrix, which is multiplied with the weight.
class Conv2dKernel final : public RowKernel {
 public:
  Conv2dKernel(const Conv2d& attributes, const KernelRequest& request)
      : stride_(attributes.stride),
        padding_(attributes.padding),
        kernel_h_(request.in[1].shape[2]),
        kernel_w_(request.in[1].shape[3]),
        x_(request.in[0].shape),
        y_(request.out[0].shape),
        k_(kernel_h_ * kernel_w_ * x_[3]),
        product_(*request.constants[1], request.in.size() == 3 ? request.constants[2] : nullptr, row_count(y_), request,
                 {.name = "conv2d", .apply = pixel_by_pixel}) {}

  std::string_view name() const override { return "onednn:conv2d"; }
  std::int64_t rows() const override { return row_count(y_); }
  bool reads_by_rows(int) const override { return false; }
  bool wants_high_tiles() const override { return true; }
  void set_tile_rows(std::int64_t rows) override { product_.set_tile_rows(rows); }
  std::size_t row_scratch_bytes() const override { return product_.scratch_bytes(); }

  void run_rows(const RowArgs& args) const noexcept override {
    product_.run(args, [&](float* rows) {
      for (std::int64_t place = args.begin; place < args.end; ++place, rows += k_) gather(args.input(0), place, rows);
    });
  }

 private:
  // What the kernel covers at a place: kernel_h_ stretches of neighbouring pixels, zeros where there are none.
  void gather(const float* x, std::int64_t place, float* row) const {
    const std::int64_t channels = x_[3];
    const std::int64_t left = place % y_[2] * stride_ - padding_;
    const std::int64_t top = place / y_[2] % y_[1] * stride_ - padding_;
    const float* const picture = x + place / y_[2] / y_[1] * x_[1] * x_[2] * channels;
    const std::int64_t begin = std::clamp<std::int64_t>(-left, 0, kernel_w_);
    const std::int64_t end = std::clamp(x_[2] - left, begin, kernel_w_);
    for (std::int64_t i = 0; i < kernel_h_; ++i, row += kernel_w_ * channels) {
      const bool inside = top + i >= 0 && top + i < x_[1] && begin < end;
      const std::int64_t first = inside ? begin : 0;
      const std::int64_t last = inside ? end : 0;
      std::fill_n(row, first * channels, 0.0F);
      if (inside) {
        std::copy_n(picture + ((top + i) * x_[2] + left + first) * channels, (last - first) * channels,
                    row + first * channels);
      }
      std::fill_n(row + last * channels, (kernel_w_ - last) * channels, 0.0F);
    }
  }

  std::int64_t stride_, padding_, kernel_h_, kernel_w_;
  Shape x_, y_;
  std::int64_t k_;
  GatheredProduct product_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Conv2d& attributes, const KernelRequest& request) {
  const bool constant = request.constants[1] && (request.in.size() == 2 || request.constants[2]);
  require<UnsupportedError>(constant, "conv2d", "the CPU engine wants weight and bias to be constants");
  if (request.out[0].shape.elements() == 0) return std::make_unique<EmptyKernel>("empty:conv2d");
  return std::make_unique<Conv2dKernel>(attributes, request);
}

}  // namespace weft
