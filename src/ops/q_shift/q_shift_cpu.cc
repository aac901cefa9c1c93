#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/q_shift/q_shift_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>

#include "kernel/simd.h"
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

// Channels [begin, end) of a token, from x or zeros. A group is a few vectors: calls of memcpy would cost more than
// they copy.
HWY_INLINE void copy_channels(const float* x, float* y, std::int64_t begin, std::int64_t end, bool zeros) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t c = begin;
  for (; c + lanes <= end; c += lanes) hn::StoreU(zeros ? hn::Zero(d) : hn::LoadU(d, x + c), d, y + c);
  if (c == end) return;
  const auto rest = static_cast<std::size_t>(end - c);
  store_n(zeros ? hn::Zero(d) : load_n(d, x + c, rest), d, y + c, rest);
}

// Tokens [begin, end) of a batch of grids; x is all of them, y those.
void q_shift_tokens(const ShiftedGrid& grid, const float* x, float* y, std::int64_t begin, std::int64_t end) {
  const std::int64_t p = grid.pixels;
  const std::int64_t tokens = grid.tokens;
  std::int64_t w = begin % grid.width;
  std::int64_t h = begin / grid.width % grid.height;
  for (std::int64_t token = begin; token < end; ++token) {
    const float* const from = x + token * grid.channels;
    float* const to = y + (token - begin) * grid.channels;
    const auto shift = [&](std::size_t group, bool inside, std::int64_t distance) HWY_ATTR {
      const float* const neighbour = from + (inside ? distance * grid.channels : 0);
      copy_channels(neighbour, to, grid.cuts[group], grid.cuts[group + 1], !inside);
    };
    // Of the rows to come only the one below has not been read lately.
    constexpr std::int64_t kAhead = 8;
    const std::int64_t below = token + kAhead + p * grid.width;
    if (below < tokens) {
      const float* const next = x + below * grid.channels;
      for (std::int64_t c = grid.cuts[3]; c < grid.cuts[4]; c += 16) __builtin_prefetch(next + c, 0, 3);
      const float* const own = from + kAhead * grid.channels;
      for (std::int64_t c = 0; c < grid.channels; c += 16) __builtin_prefetch(own + c, 0, 3);
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

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(q_shift_tokens);

class QShiftKernel final : public RowKernel {
 public:
  QShiftKernel(const QShift& attributes, const Shape& x)
      : grid_{row_count(x), attributes.height, attributes.width, x[2], attributes.pixels, attributes.cuts(x[2])} {}

  std::string_view name() const override { return "hwy:q_shift"; }
  std::int64_t rows() const override { return grid_.tokens; }
  bool reads_by_rows(int) const override { return false; }

  void run_rows(const RowArgs& args) const noexcept override {
    HWY_DYNAMIC_DISPATCH(q_shift_tokens)(grid_, args.input(0), args.output(), args.begin, args.end);
  }

 private:
  ShiftedGrid grid_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const QShift& attributes, const KernelRequest& request) {
  return std::make_unique<QShiftKernel>(attributes, request.in[0].shape);
}

}  // namespace weft
#endif
