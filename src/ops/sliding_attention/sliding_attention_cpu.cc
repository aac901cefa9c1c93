#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/sliding_attention/sliding_attention_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <numbers>

#include "kernel/empty_kernel.h"
#include "kernel/math-inl.h"
#include "kernel/simd.h"
#include "ops/sliding_attention/sliding_attention.h"

#ifndef WEFT_SLIDING_ROWS_
#define WEFT_SLIDING_ROWS_
namespace weft {
namespace {

// No probability comes out of this score.
constexpr float kNever = -1e30F;

// Some rows of a grid, one head. Matrices lie with the columns of the grid side by side, for neighbouring queries read
// neighbouring keys: a vector holds queries.
struct SlidingRows {
  std::size_t height, width, channels, step;  // `step`: elements from one token to the next
  std::size_t kernel, reach;                  // k and (k − 1)/2
  float factor;                               // of the scores, times log2 e
  bool excludes;                              // what is outside of the grid; else it is zeros
  const float* bias;                          // [k·k], or null
  std::size_t lanes_width;                    // width in whole vectors
  std::size_t padded_width;                   // and the reach on both sides
  // Memory: keys and values [rows + 2·reach,D,padded width], scores [k·k,lanes_width], queries and result
  // [D,lanes_width].
  float *keys, *values, *scores, *queries, *result;
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

// Row `y` of the grid x, or zeros outside, to [D,padded width].
void pack_row(const SlidingRows& s, const float* x, std::int64_t y, float* to) {
  std::fill_n(to, s.channels * s.padded_width, 0.0F);
  if (y < 0 || y >= static_cast<std::int64_t>(s.height)) return;
  transpose(x + static_cast<std::size_t>(y) * s.width * s.step, s.step, s.width, s.channels, to + s.reach,
            s.padded_width);
}

// One vector of queries from column `x` on: their scores for kCount neighbouring offsets.
template <int kCount>
HWY_INLINE void score(const SlidingRows& s, const float* keys, std::size_t entry, std::size_t x) {
  const D d;
  V sums[kCount];
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) sums[i] = hn::Zero(d);
  const float* q = s.queries + x;
  for (std::size_t c = 0; c < s.channels; ++c, q += s.lanes_width, keys += s.padded_width) {
    const V query = hn::LoadU(d, q);
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) sums[i] = hn::MulAdd(query, hn::LoadU(d, keys + i), sums[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) {
    const V bias = hn::Set(d, s.bias ? s.bias[entry + i] * std::numbers::log2e_v<float> : 0.0F);
    hn::StoreU(hn::MulAdd(hn::Set(d, s.factor), sums[i], bias), d, s.scores + (entry + i) * s.lanes_width + x);
  }
}

// The result of kCount neighbouring channels for one vector of queries.
template <int kCount>
HWY_INLINE void mix(const SlidingRows& s, const float* values, V factor, std::size_t c, std::size_t x) {
  const D d;
  V sums[kCount];
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) sums[i] = hn::Zero(d);
  const float* p = s.scores + x;
  for (std::size_t dy = 0; dy < s.kernel; ++dy) {
    const float* const row = values + (dy * s.channels + c) * s.padded_width + x;
    for (std::size_t dx = 0; dx < s.kernel; ++dx, p += s.lanes_width) {
      const V probability = hn::LoadU(d, p);
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) {
        sums[i] = hn::MulAdd(probability, hn::LoadU(d, row + i * s.padded_width + dx), sums[i]);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) hn::StoreU(hn::Mul(factor, sums[i]), d, s.result + (c + i) * s.lanes_width + x);
}

void exclude_outside(const SlidingRows& s, std::int64_t y) {
  for (std::size_t dy = 0; dy < s.kernel; ++dy) {
    const std::int64_t row = y + static_cast<std::int64_t>(dy) - static_cast<std::int64_t>(s.reach);
    const bool is_row = row >= 0 && row < static_cast<std::int64_t>(s.height);
    for (std::size_t dx = 0; dx < s.kernel; ++dx) {
      float* const to = s.scores + (dy * s.kernel + dx) * s.lanes_width;
      // Columns whose key is at the left of the grid, and from where on it is at the right.
      const std::size_t left = is_row ? std::min(s.width, s.reach - std::min(s.reach, dx)) : s.width;
      const std::size_t right = s.width - std::min(s.width, dx - std::min(s.reach, dx));
      std::fill(to, to + left, kNever);
      std::fill(to + std::max(left, right), to + s.width, kNever);
    }
  }
}

// Row `y`, whose window begins at row `first` of the packed keys and values.
void attend_row(const SlidingRows& s, const float* q, float* out, std::size_t y, std::size_t first) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t row = s.channels * s.padded_width;
  transpose(q + y * s.width * s.step, s.step, s.width, s.channels, s.queries, s.lanes_width);
  for (std::size_t dy = 0; dy < s.kernel; ++dy) {
    const float* const keys = s.keys + (first + dy) * row;
    for (std::size_t x = 0; x < s.lanes_width; x += lanes) {
      std::size_t dx = 0;
      for (; dx + 4 <= s.kernel; dx += 4) score<4>(s, keys + x + dx, dy * s.kernel + dx, x);
      for (; dx < s.kernel; ++dx) score<1>(s, keys + x + dx, dy * s.kernel + dx, x);
    }
  }
  if (s.excludes) exclude_outside(s, static_cast<std::int64_t>(y));
  const std::size_t entries = s.kernel * s.kernel;
  for (std::size_t x = 0; x < s.lanes_width; x += lanes) {
    float* const scores = s.scores + x;
    V largest = hn::LoadU(d, scores);
    for (std::size_t i = 1; i < entries; ++i) largest = hn::Max(largest, hn::LoadU(d, scores + i * s.lanes_width));
    V sum = hn::Zero(d);
    for (std::size_t i = 0; i < entries; ++i) {
      const V e = exp2_of_negative(d, hn::Sub(hn::LoadU(d, scores + i * s.lanes_width), largest));
      sum = hn::Add(sum, e);
      hn::StoreU(e, d, scores + i * s.lanes_width);
    }
    const V factor = hn::Div(hn::Set(d, 1.0F), sum);
    const float* const values = s.values + first * row;
    std::size_t c = 0;
    for (; c + 4 <= s.channels; c += 4) mix<4>(s, values, factor, c, x);
    for (; c < s.channels; ++c) mix<1>(s, values, factor, c, x);
  }
  transpose(s.result, s.lanes_width, s.channels, s.width, out + y * s.width * s.step, s.step);
}

// Rows [begin, end) of the grid.
void sliding_rows(const SlidingRows& s, const float* q, const float* k, const float* v, float* y, std::size_t begin,
                  std::size_t end) {
  const std::size_t row = s.channels * s.padded_width;
  // Vectors of queries beyond the grid's width are computed and dropped: of zeros.
  std::fill_n(s.queries, s.channels * s.lanes_width, 0.0F);
  for (std::size_t i = 0; i < end - begin + 2 * s.reach; ++i) {
    const std::int64_t from = static_cast<std::int64_t>(begin + i) - static_cast<std::int64_t>(s.reach);
    pack_row(s, k, from, s.keys + i * row);
    pack_row(s, v, from, s.values + i * row);
  }
  for (std::size_t i = begin; i < end; ++i) attend_row(s, q, y, i, i - begin);
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(sliding_rows);

class SlidingAttentionKernel final : public Kernel {
 public:
  SlidingAttentionKernel(const SlidingAttention& attributes, const KernelRequest& request)
      : batch_(request.in[0].shape[0]),
        heads_(attributes.heads),
        has_bias_(request.in.size() == 4),
        threads_(static_cast<std::size_t>(request.threads)) {
    const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
    const std::int64_t channels = request.in[0].shape[2];
    constexpr std::size_t kMostLanes = 16;
    rows_.height = size(attributes.height);
    rows_.width = size(attributes.width);
    rows_.step = size(channels);
    rows_.channels = size(channels / heads_);
    rows_.kernel = size(attributes.kernel_size);
    rows_.reach = rows_.kernel / 2;
    rows_.factor = static_cast<float>(attributes.factor(channels / heads_) * std::numbers::log2e);
    rows_.excludes = attributes.border == SlidingBorder::kExcluded;
    rows_.bias = nullptr;
    rows_.lanes_width = (rows_.width + kMostLanes - 1) / kMostLanes * kMostLanes;
    rows_.padded_width = rows_.lanes_width + 2 * rows_.reach;
    // So many rows at once that packed keys and values stay in the second-level cache, and few of them twice.
    constexpr std::size_t kPackedBytes = 512 * 1024;
    const std::size_t row_bytes = 2 * rows_.channels * rows_.padded_width * sizeof(float);
    const std::size_t most = kPackedBytes / row_bytes;
    together_ = std::clamp<std::size_t>(most - std::min(most, 2 * rows_.reach), 1, rows_.height);
  }

  std::string_view name() const override { return "hwy:sliding_attention"; }
  std::size_t scratch_bytes() const override { return slot_floats() * sizeof(float) * threads_; }

  void run(const KernelArgs& args) const noexcept override {
    const auto blocks = static_cast<std::int64_t>((rows_.height + together_ - 1) / together_);
    args.workers.parallel_for(batch_ * heads_ * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        run_rows(args, i / blocks, static_cast<std::size_t>(i % blocks) * together_);
      }
    });
  }

 private:
  std::size_t packed_floats() const { return (together_ + 2 * rows_.reach) * rows_.channels * rows_.padded_width; }
  std::size_t slot_floats() const {
    const std::size_t floats =
        2 * packed_floats() + (rows_.kernel * rows_.kernel + 2 * rows_.channels) * rows_.lanes_width;
    return (floats + 15) / 16 * 16;
  }

  // `head` is counted over the whole batch.
  void run_rows(const KernelArgs& args, std::int64_t head, std::size_t first) const {
    SlidingRows rows = rows_;
    rows.keys = reinterpret_cast<float*>(args.scratch) + slot_floats() * static_cast<std::size_t>(args.workers.index());
    rows.values = rows.keys + packed_floats();
    rows.scores = rows.values + packed_floats();
    rows.queries = rows.scores + rows.kernel * rows.kernel * rows.lanes_width;
    rows.result = rows.queries + rows.channels * rows.lanes_width;
    const auto own = static_cast<std::size_t>(head % heads_);
    if (has_bias_) rows.bias = args.input(3) + own * rows.kernel * rows.kernel;
    const std::size_t from =
        static_cast<std::size_t>(head / heads_) * rows.height * rows.width * rows.step + own * rows.channels;
    HWY_DYNAMIC_DISPATCH(sliding_rows)
    (rows, args.input(0) + from, args.input(1) + from, args.input(2) + from, args.output() + from, first,
     std::min(first + together_, rows.height));
  }

  SlidingRows rows_{};
  std::int64_t batch_, heads_;
  bool has_bias_;
  std::size_t threads_;
  std::size_t together_;  // rows of the grid
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const SlidingAttention& attributes, const KernelRequest& request) {
  if (request.out[0].shape.elements() == 0) return std::make_unique<EmptyKernel>("empty:sliding_attention");
  return std::make_unique<SlidingAttentionKernel>(attributes, request);
}

}  // namespace weft
#endif
