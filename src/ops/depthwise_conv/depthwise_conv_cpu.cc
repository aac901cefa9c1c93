#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/depthwise_conv/depthwise_conv_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <utility>

#include "kernel/scratch.h"
#include "kernel/simd.h"
#include "ops/depthwise_conv/depthwise_conv.h"

#ifndef WEFT_DEPTHWISE_CONV_SHARED_
#define WEFT_DEPTHWISE_CONV_SHARED_
namespace weft {
namespace {

// Channels that are gone over together: with 7 × 7 taps these kernels, and what they cover of some pixels, fit the
// first-level cache.
constexpr std::int64_t kChunk = 64;

struct ConvGrid {
  std::int64_t height, width, channels;  // of x
  std::int64_t kernel_h, kernel_w, padding;
  std::int64_t out_h, out_w;

  std::int64_t taps() const { return kernel_h * kernel_w; }
};

// Some channels of some places of one picture.
struct ConvPart {
  const std::byte* x;  // the picture
  bool is_bf16;
  const float* weight;  // [taps,…], rows `weight_step` apart; the first of these channels
  std::int64_t weight_step;
  const float* bias;  // of the first of these channels; may be null
  float* y;           // the first place's
  std::int64_t begin, end;
  std::int64_t channel, channels;
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

// Neighbours in a row whose sums are kept in registers. A pixel of x is loaded once for all of them, and a tap's weight
// once.
constexpr int kPixels = 8;

// A vector of channels; kTail: the first `count` of one.
template <bool kBF16, bool kTail>
struct Channels {
  std::size_t count;

  HWY_INLINE V x(const std::byte* from, std::int64_t element) const {
    if constexpr (kBF16) {
      const auto* const at = reinterpret_cast<const std::uint16_t*>(from) + element;
      return kTail ? load_bf16_n(D(), at, count) : load_bf16(D(), at);
    }
    return f32(reinterpret_cast<const float*>(from) + element);
  }
  HWY_INLINE V f32(const float* at) const { return kTail ? load_n(D(), at, count) : hn::LoadU(D(), at); }
  HWY_INLINE void store(V value, float* at) const {
    if constexpr (kTail) {
      store_n(value, D(), at, count);
    } else {
      hn::StoreU(value, D(), at);
    }
  }
};

template <int kTap, int kPixel, int kTaps>
HWY_INLINE void add_product(const V (&weights)[kTaps], V x, V (&sums)[kPixels]) {
  if constexpr (kPixel >= 0 && kPixel < kPixels) sums[kPixel] = hn::MulAdd(weights[kTap], x, sums[kPixel]);
}

template <int kColumn, int kTaps, int... kTap>
HWY_INLINE void add_products(const V (&weights)[kTaps], V x, V (&sums)[kPixels], std::integer_sequence<int, kTap...>) {
  (add_product<kTap, kColumn - kTap>(weights, x, sums), ...);
}

// What column kColumn of x adds to the sums: it is under tap t of pixel kColumn − t. Columns beyond the grid are zeros.
template <int kColumn, class C, int kTaps>
HWY_INLINE void add_column(const C& channels, const V (&weights)[kTaps], const std::byte* x, std::int64_t at,
                           std::int64_t first, std::int64_t last, V (&sums)[kPixels]) {
  if (kColumn < first || kColumn >= last) return;
  add_products<kColumn>(weights, channels.x(x, at), sums, std::make_integer_sequence<int, kTaps>());
}

template <class C, int kTaps, int... kColumn>
HWY_INLINE void add_columns(const C& channels, const V (&weights)[kTaps], const std::byte* x, std::int64_t at,
                            std::int64_t step, std::int64_t first, std::int64_t last, V (&sums)[kPixels],
                            std::integer_sequence<int, kColumn...>) {
  (add_column<kColumn>(channels, weights, x, at + kColumn * step, first, last, sums), ...);
}

// Where a row of the kernel lies: element `row` is the first of its row of x, column `left` of that is under the first
// tap for the first pixel, and `weight` is the first tap's.
struct KernelRow {
  const float* weight;
  std::int64_t row, left, pixels;
};

// As many times kTaps neighbouring taps, from tap `j` on, as there are.
template <int kTaps, class C>
HWY_INLINE void add_taps(const ConvGrid& grid, const ConvPart& part, const C& channels, const KernelRow& of,
                         std::int64_t& j, V (&sums)[kPixels]) {
  for (; j + kTaps <= grid.kernel_w; j += kTaps) {
    V weights[kTaps];
    for (int t = 0; t < kTaps; ++t) weights[t] = channels.f32(of.weight + (j + t) * part.weight_step);
    const std::int64_t column = of.left + j;
    const std::int64_t last = std::min(of.pixels + kTaps - 1, grid.width - column);
    add_columns(channels, weights, part.x, of.row + column * grid.channels, grid.channels, -column, last, sums,
                std::make_integer_sequence<int, kPixels + kTaps - 1>());
  }
}

template <class C, int... kPixel>
HWY_INLINE void store_pixels(const C& channels, const V (&sums)[kPixels], float* y, std::int64_t step,
                             std::int64_t pixels, std::integer_sequence<int, kPixel...>) {
  ((kPixel < pixels ? channels.store(sums[kPixel], y + kPixel * step) : void()), ...);
}

// The sums of some neighbours in a row, from place (h, w) on, for one vector of channels.
template <class C>
HWY_INLINE void convolve_pixels(const ConvGrid& grid, const ConvPart& part, const C& channels, std::int64_t channel,
                                std::int64_t h, std::int64_t w, std::int64_t pixels, float* y) {
  V sums[kPixels];
  const V start = part.bias ? channels.f32(part.bias + channel) : hn::Zero(D());
  for (V& sum : sums) sum = start;
  const std::int64_t top = h - grid.padding;
  const std::int64_t left = w - grid.padding;
  const std::int64_t i_end = std::min(grid.kernel_h, grid.height - top);
  for (std::int64_t i = std::max<std::int64_t>(-top, 0); i < i_end; ++i) {
    const KernelRow row{.weight = part.weight + i * grid.kernel_w * part.weight_step + channel,
                        .row = (top + i) * grid.width * grid.channels + part.channel + channel,
                        .left = left,
                        .pixels = pixels};
    std::int64_t j = 0;
    add_taps<7>(grid, part, channels, row, j, sums);
    add_taps<5>(grid, part, channels, row, j, sums);
    add_taps<3>(grid, part, channels, row, j, sums);
    add_taps<1>(grid, part, channels, row, j, sums);
  }
  store_pixels(channels, sums, y + channel, grid.channels, pixels, std::make_integer_sequence<int, kPixels>());
}

template <bool kBF16>
HWY_INLINE void convolve_part(const ConvGrid& grid, const ConvPart& part) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  for (std::int64_t place = part.begin; place < part.end;) {
    const std::int64_t h = place / grid.out_w;
    const std::int64_t w = place % grid.out_w;
    const std::int64_t pixels = std::min({std::int64_t{kPixels}, grid.out_w - w, part.end - place});
    float* const y = part.y + (place - part.begin) * grid.channels + part.channel;
    std::int64_t c = 0;
    for (; c + lanes <= part.channels; c += lanes) {
      convolve_pixels(grid, part, Channels<kBF16, false>{0}, c, h, w, pixels, y);
    }
    if (c < part.channels) {
      const auto rest = static_cast<std::size_t>(part.channels - c);
      convolve_pixels(grid, part, Channels<kBF16, true>{rest}, c, h, w, pixels, y);
    }
    place += pixels;
  }
}

void convolve(const ConvGrid& grid, const ConvPart& part) {
  if (part.is_bf16) return convolve_part<true>(grid, part);
  convolve_part<false>(grid, part);
}

// Kernels [channels,taps] → [taps,channels], these kChunk apart.
void turn_kernels(const float* kernels, std::int64_t taps, std::int64_t channels, float* turned) {
  transpose(kernels, taps, channels, taps, turned, kChunk);
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(convolve);
HWY_EXPORT(turn_kernels);

// [C,taps] → [taps,C]
Tensor turned_kernels(const Tensor& weight, std::int64_t channels) {
  const std::int64_t taps = weight.elements() / std::max<std::int64_t>(channels, 1);
  Tensor result(DType::kF32, {taps, channels});
  const auto from = weight.data<float>();
  const auto to = result.mutable_data<float>();
  for (std::size_t i = 0; i < from.size(); ++i) {
    const auto flat = static_cast<std::int64_t>(i);
    to[static_cast<std::size_t>(flat % taps * channels + flat / taps)] = from[i];
  }
  return result;
}

class DepthwiseConvKernel final : public RowKernel {
 public:
  DepthwiseConvKernel(const DepthwiseConv& attributes, const KernelRequest& request)
      : rows_(row_count(request.out[0].shape)),
        is_dynamic_(is_dynamic(request.in[0].shape, request.in[1].shape)),
        has_bias_(request.in.size() == 3) {
    const Shape& x = request.in[0].shape;
    const Shape& weight = request.in[1].shape;
    const Shape& y = request.out[0].shape;
    grid_ = {.height = x[1],
             .width = x[2],
             .channels = x[3],
             .kernel_h = weight[2],
             .kernel_w = weight[3],
             .padding = attributes.padding,
             .out_h = y[1],
             .out_w = y[2]};
    if (request.constants[1] && weight[0] == x[3] && weight[1] == 1) {
      is_dynamic_ = false;
      packed_ = request.packs->get(*request.constants[1], "depthwise",
                                   [&] { return turned_kernels(*request.constants[1], x[3]); });
    }
  }

  std::string_view name() const override { return "hwy:depthwise_conv"; }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int) const override { return false; }
  // Kernels that come with the picture are turned for each tile.
  bool wants_high_tiles() const override { return true; }
  bool reads_bf16(int i) const override { return i == 0; }
  void give_bf16(int) override { is_bf16_ = true; }
  std::size_t row_scratch_bytes() const override {
    return is_packed() ? 0 : whole_lines(static_cast<std::size_t>(grid_.taps() * kChunk) * sizeof(float));
  }

  void run_rows(const RowArgs& args) const noexcept override {
    const std::int64_t places = grid_.out_h * grid_.out_w;
    for (std::int64_t row = args.begin; row < args.end;) {
      const std::int64_t picture = row / places;
      const std::int64_t end = std::min(args.end, (picture + 1) * places);
      for (std::int64_t channel = 0; channel < grid_.channels; channel += kChunk) {
        run_chunk(args, picture, row, end, channel);
      }
      row = end;
    }
  }

 private:
  bool is_packed() const { return packed_.elements() > 0; }

  // `picture`'s rows from `begin` to `end`, kChunk channels from `channel` on.
  void run_chunk(const RowArgs& args, std::int64_t picture, std::int64_t begin, std::int64_t end,
                 std::int64_t channel) const {
    const std::int64_t first = picture * grid_.out_h * grid_.out_w;
    const std::int64_t pixels = picture * grid_.height * grid_.width;
    const std::size_t element = is_bf16_ ? sizeof(std::uint16_t) : sizeof(float);
    ConvPart part{.x = args.in[0] + static_cast<std::size_t>(pixels * grid_.channels) * element,
                  .is_bf16 = is_bf16_,
                  .weight = reinterpret_cast<const float*>(args.scratch),
                  .weight_step = kChunk,
                  .bias = has_bias_ ? args.input(2) + channel : nullptr,
                  .y = args.output() + (begin - args.begin) * grid_.channels,
                  .begin = begin - first,
                  .end = end - first,
                  .channel = channel,
                  .channels = std::min(kChunk, grid_.channels - channel)};
    if (is_packed()) {
      part.weight = packed_.data<float>().data() + channel;
      part.weight_step = grid_.channels;
    } else {
      const std::int64_t kernel = (is_dynamic_ ? picture * grid_.channels : 0) + channel;
      HWY_DYNAMIC_DISPATCH(turn_kernels)
      (args.input(1) + kernel * grid_.taps(), grid_.taps(), part.channels, reinterpret_cast<float*>(args.scratch));
    }
    HWY_DYNAMIC_DISPATCH(convolve)(grid_, part);
  }

  std::int64_t rows_;
  bool is_dynamic_, has_bias_;
  ConvGrid grid_{};
  Tensor packed_;  // [taps,C], of static constant kernels
  bool is_bf16_ = false;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const DepthwiseConv& attributes, const KernelRequest& request) {
  return std::make_unique<DepthwiseConvKernel>(attributes, request);
}

}  // namespace weft
#endif
