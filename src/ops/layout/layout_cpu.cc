#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/layout/layout_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "kernel/simd.h"
#include "ops/layout/layout.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

void transpose_tile(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t columns, float* y,
                    std::int64_t y_stride) {
  // Strip by strip, each row of y written as a whole: a power of two apart, many of them would push each other out of
  // the cache.
  constexpr std::int64_t kStrip = 4;
  for (std::int64_t c = 0; c < columns; c += kStrip) {
    transpose(x + c, x_stride, rows, std::min(kStrip, columns - c), y + c * y_stride, y_stride);
  }
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(transpose_tile);

// Where reshape cannot share memory.
class CopyKernel final : public Kernel {
 public:
  explicit CopyKernel(const Shape& shape) : elements_(shape.elements()) {}
  std::string_view name() const override { return "copy:reshape"; }
  bool may_overwrite(int) const override { return true; }
  void run(const KernelArgs& args) const noexcept override {
    if (args.input(0) == args.output()) return;
    args.workers.parallel_for(elements_, 16384, [&](std::int64_t begin, std::int64_t end) {
      std::copy(args.input(0) + begin, args.input(0) + end, args.output() + begin);
    });
  }

 private:
  std::int64_t elements_;
};

struct Axis {
  std::int64_t extent;
  std::int64_t stride;  // in x
};

// The axes of the result, outermost first: no 1s, neighbours merged that are neighbours in x too.
std::vector<Axis> merged_axes(const Shape& x, std::span<const int> order) {
  std::vector<std::int64_t> strides(order.size(), 1);
  for (std::size_t axis = order.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * x[static_cast<int>(axis)];
  std::vector<Axis> axes;
  for (const int from : order) {
    const Axis axis{x[from], strides[static_cast<std::size_t>(from)]};
    if (axis.extent == 1) continue;
    if (!axes.empty() && axes.back().stride == axis.stride * axis.extent) {
      axes.back() = {axes.back().extent * axis.extent, axis.stride};
    } else {
      axes.push_back(axis);
    }
  }
  return axes;
}

// A batch of plain transpositions, or of copies: the axes of the result are cut into outer ones, which are walked over,
// and the last and the one that is contiguous in x, which are transposed tile by tile.
class PermuteKernel final : public Kernel {
 public:
  explicit PermuteKernel(const Shape& x, std::span<const int> order) : outer_(merged_axes(x, order)) {
    if (x.elements() == 0) return;
    std::int64_t y_stride = 1;
    std::vector<std::int64_t> y_strides(outer_.size());
    for (std::size_t i = outer_.size(); i-- > 0; y_stride *= outer_[i].extent) y_strides[i] = y_stride;
    const auto take = [&](std::size_t i) {
      const Axis axis = outer_[i];
      y_stride_ = y_strides[i];
      outer_.erase(outer_.begin() + static_cast<std::ptrdiff_t>(i));
      y_strides.erase(y_strides.begin() + static_cast<std::ptrdiff_t>(i));
      return axis;
    };
    if (!outer_.empty()) rows_ = take(outer_.size() - 1);
    if (rows_.stride != 1) {
      const auto contiguous = std::ranges::find(outer_, 1, &Axis::stride);
      columns_ = take(static_cast<std::size_t>(contiguous - outer_.begin()));
    }
    outer_y_strides_ = std::move(y_strides);
    outer_count_ = 1;
    for (const Axis& axis : outer_) outer_count_ *= axis.extent;
  }

  std::string_view name() const override { return "hwy:permute"; }

  void run(const KernelArgs& args) const noexcept override {
    if (outer_count_ == 0) return;
    const bool copies = rows_.stride == 1;
    const std::int64_t tile_rows = copies ? kCopyTile : kTile;
    const std::int64_t row_tiles = (rows_.extent + tile_rows - 1) / tile_rows;
    const std::int64_t column_tiles = (columns_.extent + kTile - 1) / kTile;
    const std::int64_t tile_elements = std::min(rows_.extent, tile_rows) * std::min(columns_.extent, kTile);
    const std::int64_t grain = std::max<std::int64_t>(1, kCopyTile / tile_elements);
    args.workers.parallel_for(outer_count_ * column_tiles * row_tiles, grain,
                              [&](std::int64_t begin, std::int64_t end) {
                                for (std::int64_t tile = begin; tile < end; ++tile) {
                                  const std::int64_t row = tile % row_tiles * tile_rows;
                                  const std::int64_t column = tile / row_tiles % column_tiles * kTile;
                                  const std::int64_t rows = std::min(tile_rows, rows_.extent - row);
                                  std::int64_t from = row * rows_.stride + column;
                                  std::int64_t to = column * y_stride_ + row;
                                  std::int64_t outer = tile / row_tiles / column_tiles;
                                  for (std::size_t i = outer_.size(); i-- > 0; outer /= outer_[i].extent) {
                                    from += outer % outer_[i].extent * outer_[i].stride;
                                    to += outer % outer_[i].extent * outer_y_strides_[i];
                                  }
                                  if (copies) {
                                    std::copy_n(args.input(0) + from, rows, args.output() + to);
                                  } else {
                                    HWY_DYNAMIC_DISPATCH(transpose_tile)
                                    (args.input(0) + from, rows_.stride, rows,
                                     std::min(kTile, columns_.extent - column), args.output() + to, y_stride_);
                                  }
                                }
                              });
  }

 private:
  static constexpr std::int64_t kTile = 64;  // 16 KiB from x and as much to y: both in the first-level cache
  static constexpr std::int64_t kCopyTile = 16384;

  std::vector<Axis> outer_;
  std::vector<std::int64_t> outer_y_strides_;
  std::int64_t outer_count_ = 0;
  Axis rows_{1, 1};     // contiguous in y
  Axis columns_{1, 1};  // contiguous in x, y_stride_ apart in y; not used when the rows are contiguous in x too
  std::int64_t y_stride_ = 0;
};

// Rows of x at their places, and rows of zeros; or, where the last axis is padded, zeros at the end of each row.
class PadKernel final : public RowKernel {
 public:
  PadKernel(const Shape& x, const Shape& y, int axis)
      : rows_(row_count(y)), x_columns_(x[-1]), y_columns_(y[-1]), x_extent_(x[-1] == y[-1] ? x[axis] : 1) {
    if (x_columns_ != y_columns_) return;
    y_extent_ = y[axis];
    for (int i = (axis < 0 ? axis + y.rank() : axis) + 1; i + 1 < y.rank(); ++i) within_ *= y[i];
  }

  std::string_view name() const override { return "copy:pad"; }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int) const override { return false; }
  bool reads_bf16(int) const override { return true; }
  void give_bf16(int) override { element_ = sizeof(std::uint16_t); }
  bool moves() const override { return true; }

  void run_rows(const RowArgs& args) const noexcept override {
    std::byte* to = args.out[0];
    for (std::int64_t row = args.begin; row < args.end; ++row) {
      const std::int64_t at = row / within_ % y_extent_;
      const std::int64_t from = (row / within_ / y_extent_ * x_extent_ + at) * within_ + row % within_;
      const std::int64_t copied = at < x_extent_ ? x_columns_ * element_ : 0;
      const std::byte* const begin = args.in[0] + (copied > 0 ? from * copied : 0);
      to = std::fill_n(std::copy_n(begin, copied, to), y_columns_ * element_ - copied, std::byte{0});
    }
  }

 private:
  std::int64_t rows_, x_columns_, y_columns_;
  std::int64_t x_extent_, y_extent_ = 1;  // of the padded axis, where that is not the last
  std::int64_t within_ = 1;               // rows to one step along it
  std::int64_t element_ = sizeof(float);  // bytes
};

// Rows of consecutive elements that are copied from one matrix into another.
struct Stripe {
  std::int64_t length;     // of a row
  std::int64_t from, to;   // of the first element
  std::int64_t from_step;  // between rows
  std::int64_t from_rows;  // there are; then the first one comes again
};

// Slice and Concat: a stripe of each input.
class StripesKernel final : public Kernel {
 public:
  StripesKernel(std::string_view name, std::vector<Stripe> stripes, std::int64_t rows, std::int64_t to_step)
      : name_(name), stripes_(std::move(stripes)), rows_(rows), to_step_(to_step) {}

  std::string_view name() const override { return name_; }

  void run(const KernelArgs& args) const noexcept override {
    for (std::size_t i = 0; i < stripes_.size(); ++i) {
      const Stripe& stripe = stripes_[i];
      const float* const x = args.input(static_cast<int>(i)) + stripe.from;
      args.workers.parallel_for(rows_ * stripe.length, kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t next; begin < end; begin = next) {
          const std::int64_t row = begin / stripe.length;
          const std::int64_t column = begin - row * stripe.length;
          next = std::min(end, begin - column + stripe.length);
          std::copy_n(x + row % stripe.from_rows * stripe.from_step + column, next - begin,
                      args.output() + row * to_step_ + stripe.to + column);
        }
      });
    }
  }

 private:
  static constexpr std::int64_t kGrain = 16384;

  std::string_view name_;
  std::vector<Stripe> stripes_;
  std::int64_t rows_, to_step_;
};

// Elements of a row that consists of `axis` and all axes within it.
std::int64_t row_elements(const Shape& shape, int axis) {
  std::int64_t count = 1;
  for (int i = axis < 0 ? axis + shape.rank() : axis; i < shape.rank(); ++i) count *= shape[i];
  return count;
}

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Reshape&, const KernelRequest& request) {
  return std::make_unique<CopyKernel>(request.in[0].shape);
}

std::unique_ptr<Kernel> make_kernel(const Permute& attributes, const KernelRequest& request) {
  return std::make_unique<PermuteKernel>(request.in[0].shape, attributes.order);
}

std::unique_ptr<Kernel> make_kernel(const Pad& attributes, const KernelRequest& request) {
  return std::make_unique<PadKernel>(request.in[0].shape, request.out[0].shape, attributes.axis);
}

std::unique_ptr<Kernel> make_kernel(const Slice& attributes, const KernelRequest& request) {
  const Shape& x = request.in[0].shape;
  const std::int64_t length = row_elements(request.out[0].shape, attributes.axis);
  const std::int64_t from_step = row_elements(x, attributes.axis);
  const std::int64_t rows = length > 0 ? request.out[0].shape.elements() / length : 0;
  const std::int64_t from = length > 0 ? attributes.begin * (from_step / x[attributes.axis]) : 0;
  const Stripe stripe{.length = length, .from = from, .to = 0, .from_step = from_step, .from_rows = rows};
  return std::make_unique<StripesKernel>("copy:slice", std::vector{stripe}, rows, length);
}

std::unique_ptr<Kernel> make_kernel(const Concat& attributes, const KernelRequest& request) {
  const Shape& y = request.out[0].shape;
  const std::int64_t to_step = row_elements(y, attributes.axis);
  std::vector<Stripe> stripes;
  std::int64_t to = 0;
  for (const TensorType& type : request.in) {
    const std::int64_t length = row_elements(type.shape, attributes.axis);
    const std::int64_t rows = length > 0 ? type.shape.elements() / length : 0;
    stripes.push_back({.length = length, .from = 0, .to = to, .from_step = length, .from_rows = rows});
    to += length;
  }
  return std::make_unique<StripesKernel>("copy:concat", std::move(stripes), to_step > 0 ? y.elements() / to_step : 0,
                                         to_step);
}

}  // namespace weft
#endif
