#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/involution/involution_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <utility>

#include "kernel/scratch.h"
#include "kernel/simd.h"
#include "ops/involution/involution.h"

#ifndef WEFT_INVOLUTION_GRID_
#define WEFT_INVOLUTION_GRID_
namespace weft {
namespace {

// What is read behind the last element by whole vectors.
constexpr std::int64_t kSlack = 64;

struct InvolutionGrid {
  std::int64_t height, width, channels, groups, kernel_size;

  std::int64_t taps() const { return kernel_size * kernel_size; }
  /// Elements from one tap's weights to the next one's, when they are turned.
  std::int64_t tap_step() const { return groups + kSlack; }
};

}  // namespace
}  // namespace weft
#endif

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// Vectors of channels whose sums are kept in registers: one for each cycle that a sum takes.
constexpr int kVectors = 4;

// Lane l of the vector from channel c on takes the weight of group (c + l)·G/C: lane `lanes[c + l]` of those from the
// group of channel c on.
void choose_lanes(const InvolutionGrid& grid, std::int32_t* lanes) {
  const auto count = static_cast<std::int64_t>(hn::Lanes(D()));
  const std::int64_t size = grid.channels / grid.groups;
  for (std::int64_t c = 0; c < grid.channels + kSlack; ++c) {
    const std::int64_t first = c / count * count / size;
    lanes[c] = c < grid.channels ? static_cast<std::int32_t>(c / size - first) : 0;
  }
}

template <bool kBF16>
HWY_INLINE V load_x(const std::byte* x, std::int64_t element) {
  if constexpr (kBF16) return load_bf16(D(), reinterpret_cast<const std::uint16_t*>(x) + element);
  return hn::LoadU(D(), reinterpret_cast<const float*>(x) + element);
}
template <bool kBF16>
HWY_INLINE V load_x_n(const std::byte* x, std::int64_t element, std::size_t count) {
  if constexpr (kBF16) return load_bf16_n(D(), reinterpret_cast<const std::uint16_t*>(x) + element, count);
  return load_n(D(), reinterpret_cast<const float*>(x) + element, count);
}

// The place (h, w) of a picture x, for kCount vectors of channels from `channel` on; `rest` > 0: one vector, of which
// the first `rest` are there. weight: [taps,groups], turned.
template <bool kBF16, int... kVector>
HWY_INLINE void sum_taps(const InvolutionGrid& grid, const std::byte* x, const float* weight, const std::int32_t* lanes,
                         std::int64_t h, std::int64_t w, std::int64_t channel, std::size_t rest, float* y,
                         std::integer_sequence<int, kVector...>) {
  constexpr int kCount = sizeof...(kVector);
  const D d;
  const hn::RebindToSigned<D> di;
  const auto count = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t size = grid.channels / grid.groups;
  const std::int64_t k = grid.kernel_size;
  V sums[kCount];
  std::int64_t groups[kCount];
  ((sums[kVector] = hn::Zero(d), groups[kVector] = (channel + kVector * count) / size), ...);
  const std::int64_t top = h - k / 2;
  const std::int64_t left = w - k / 2;
  const std::int64_t i_end = std::min(k, grid.height - top);
  const std::int64_t j_begin = std::max<std::int64_t>(-left, 0);
  const std::int64_t j_end = std::min(k, grid.width - left);
  for (std::int64_t i = std::max<std::int64_t>(-top, 0); i < i_end; ++i) {
    for (std::int64_t j = j_begin; j < j_end; ++j) {
      const float* const of_tap = weight + (i * k + j) * grid.tap_step();
      const std::int64_t pixel = ((top + i) * grid.width + left + j) * grid.channels + channel;
      const auto add = [&](int v) HWY_ATTR {
        const auto indices = hn::IndicesFromVec(d, hn::LoadU(di, lanes + channel + v * count));
        const V factor = hn::TableLookupLanes(hn::LoadU(d, of_tap + groups[v]), indices);
        const V at = rest > 0 ? load_x_n<kBF16>(x, pixel, rest) : load_x<kBF16>(x, pixel + v * count);
        return hn::MulAdd(factor, at, sums[v]);
      };
      ((sums[kVector] = add(kVector)), ...);
    }
  }
  if (rest > 0) return store_n(sums[0], d, y + channel, rest);
  (hn::StoreU(sums[kVector], d, y + channel + kVector * count), ...);
}

template <bool kBF16>
HWY_INLINE void involve_places(const InvolutionGrid& grid, const std::byte* x, const float* weight, float* y,
                               std::int64_t begin, std::int64_t end, const std::int32_t* lanes, float* turned) {
  const auto count = static_cast<std::int64_t>(hn::Lanes(D()));
  const std::int64_t element = kBF16 ? sizeof(std::uint16_t) : sizeof(float);
  const std::int64_t places = grid.height * grid.width;
  for (std::int64_t place = begin; place < end; ++place) {
    // Four at a time: what is read is read in order.
    for (std::int64_t g = 0; g < grid.groups; g += 4) {
      transpose(weight + g * grid.taps(), grid.taps(), std::min<std::int64_t>(4, grid.groups - g), grid.taps(),
                turned + g, grid.tap_step());
    }
    const std::byte* const picture = x + place / places * places * grid.channels * element;
    const std::int64_t h = place % places / grid.width;
    const std::int64_t w = place % grid.width;
    const auto sum = [&](std::int64_t channel, std::size_t rest, auto vectors)
                         HWY_ATTR { sum_taps<kBF16>(grid, picture, turned, lanes, h, w, channel, rest, y, vectors); };
    std::int64_t c = 0;
    for (; c + kVectors * count <= grid.channels; c += kVectors * count) {
      sum(c, 0, std::make_integer_sequence<int, kVectors>());
    }
    for (; c + 2 * count <= grid.channels; c += 2 * count) sum(c, 0, std::make_integer_sequence<int, 2>());
    for (; c + count <= grid.channels; c += count) sum(c, 0, std::make_integer_sequence<int, 1>());
    if (c < grid.channels) {
      sum(c, static_cast<std::size_t>(grid.channels - c), std::make_integer_sequence<int, 1>());
    }
    weight += grid.groups * grid.taps();
    y += grid.channels;
  }
}

// Places [begin,end) of all pictures; x is all of them, weight and y those places. turned: for one place's kernels.
void involve(const InvolutionGrid& grid, const std::byte* x, bool is_bf16, const float* weight, float* y,
             std::int64_t begin, std::int64_t end, const std::int32_t* lanes, float* turned) {
  if (is_bf16) return involve_places<true>(grid, x, weight, y, begin, end, lanes, turned);
  involve_places<false>(grid, x, weight, y, begin, end, lanes, turned);
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(choose_lanes);
HWY_EXPORT(involve);

class InvolutionKernel final : public RowKernel {
 public:
  InvolutionKernel(const Involution& attributes, const Shape& x, std::int64_t kernels)
      : grid_{x[1], x[2], x[3], kernels / attributes.taps(), attributes.kernel_size}, rows_(row_count(x)) {
    lanes_.resize(static_cast<std::size_t>(grid_.channels + kSlack));
    HWY_DYNAMIC_DISPATCH(choose_lanes)(grid_, lanes_.data());
  }

  std::string_view name() const override { return "hwy:involution"; }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int i) const override { return i == 1; }
  bool reads_bf16(int i) const override { return i == 0; }
  void give_bf16(int) override { is_bf16_ = true; }
  std::size_t row_scratch_bytes() const override {
    return whole_lines(static_cast<std::size_t>(grid_.taps() * grid_.tap_step()) * sizeof(float));
  }

  void run_rows(const RowArgs& args) const noexcept override {
    HWY_DYNAMIC_DISPATCH(involve)
    (grid_, args.in[0], is_bf16_, args.input(1), args.output(), args.begin, args.end, lanes_.data(),
     reinterpret_cast<float*>(args.scratch));
  }

 private:
  InvolutionGrid grid_;
  std::int64_t rows_;
  std::vector<std::int32_t> lanes_;
  bool is_bf16_ = false;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Involution& attributes, const KernelRequest& request) {
  return std::make_unique<InvolutionKernel>(attributes, request.in[0].shape, request.in[1].shape[3]);
}

}  // namespace weft
#endif
