#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/q_shift/q_shift_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>

#include "ops/q_shift/q_shift.h"

#ifndef WEFT_Q_SHIFT_GRID_
#define WEFT_Q_SHIFT_GRID_
namespace weft {
namespace {

struct ShiftedGrid {
  std::int64_t tokens;  // of all grids
  std::int64_t height, width, channels, pixels;
  std::array<std::int64_t, 5> cuts;
};

}  // namespace
}  // namespace weft
#endif

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Elements [begin, end) of a token, from x or zeros. A group is a few vectors: calls of memcpy would cost more than
// they copy.
template <class T>
HWY_INLINE void copy_channels(const T* x, T* y, std::int64_t begin, std::int64_t end, bool zeros) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t c = begin;
  for (; c + lanes <= end; c += lanes) hn::StoreU(zeros ? hn::Zero(d) : hn::LoadU(d, x + c), d, y + c);
  const hn::Half<decltype(d)> half;
  if (const auto few = static_cast<std::int64_t>(hn::Lanes(half)); c + few <= end) {
    hn::StoreU(zeros ? hn::Zero(half) : hn::LoadU(half, x + c), half, y + c);
    c += few;
  }
  for (; c < end; ++c) y[c] = zeros ? T{0} : x[c];
}

// Tokens [begin, end) of a batch of grids; x is all of them, y those.
template <class T>
HWY_INLINE void shift_tokens(const ShiftedGrid& grid, const T* x, T* y, std::int64_t begin, std::int64_t end) {
  const std::int64_t p = grid.pixels;
  const std::int64_t tokens = grid.tokens;
  std::int64_t w = begin % grid.width;
  std::int64_t h = begin / grid.width % grid.height;
  for (std::int64_t token = begin; token < end; ++token) {
    const T* const from = x + token * grid.channels;
    T* const to = y + (token - begin) * grid.channels;
    const auto shift = [&](std::size_t group, bool inside, std::int64_t distance) HWY_ATTR {
      const T* const neighbour = from + (inside ? distance * grid.channels : 0);
      copy_channels(neighbour, to, grid.cuts[group], grid.cuts[group + 1], !inside);
    };
    // Of the rows to come only the one below has not been read lately.
    constexpr std::int64_t kAhead = 8;
    const std::int64_t below = token + kAhead + p * grid.width;
    if (below < tokens) {
      constexpr std::int64_t kLine = 64 / sizeof(T);
      const T* const next = x + below * grid.channels;
      for (std::int64_t c = grid.cuts[3]; c < grid.cuts[4]; c += kLine) __builtin_prefetch(next + c, 0, 3);
      const T* const own = from + kAhead * grid.channels;
      for (std::int64_t c = 0; c < grid.channels; c += kLine) __builtin_prefetch(own + c, 0, 3);
    }
    shift(0, w >= p, -p);
    shift(1, w + p < grid.width, p);
    shift(2, h >= p, -p * grid.width);
    shift(3, h + p < grid.height, p * grid.width);
    copy_channels(from, to, grid.cuts[4], grid.channels, false);
    if (++w < grid.width) continue;
    w = 0;
    if (++h == grid.height) h = 0;
  }
}

void q_shift_f32(const ShiftedGrid& grid, const float* x, float* y, std::int64_t begin, std::int64_t end) {
  shift_tokens(grid, x, y, begin, end);
}
void q_shift_bf16(const ShiftedGrid& grid, const std::uint16_t* x, std::uint16_t* y, std::int64_t begin,
                  std::int64_t end) {
  shift_tokens(grid, x, y, begin, end);
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(q_shift_f32);
HWY_EXPORT(q_shift_bf16);

class QShiftKernel final : public RowKernel {
 public:
  QShiftKernel(const QShift& attributes, const Shape& x)
      : grid_{row_count(x), attributes.height, attributes.width, x[2], attributes.pixels, attributes.cuts(x[2])} {}

  std::string_view name() const override { return "hwy:q_shift"; }
  std::int64_t rows() const override { return grid_.tokens; }
  bool reads_by_rows(int) const override { return false; }
  bool reads_bf16(int) const override { return true; }
  void give_bf16(int) override { is_bf16_ = true; }
  bool moves() const override { return true; }

  void run_rows(const RowArgs& args) const noexcept override {
    if (is_bf16_) {
      HWY_DYNAMIC_DISPATCH(q_shift_bf16)
      (grid_, args.input<std::uint16_t>(0), args.output<std::uint16_t>(), args.begin, args.end);
    } else {
      HWY_DYNAMIC_DISPATCH(q_shift_f32)(grid_, args.input(0), args.output(), args.begin, args.end);
    }
  }

 private:
  ShiftedGrid grid_;
  bool is_bf16_ = false;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const QShift& attributes, const KernelRequest& request) {
  return std::make_unique<QShiftKernel>(attributes, request.in[0].shape);
}

}  // namespace weft
#endif
