#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/attention_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <limits>
#include <numbers>

#include "core/half.h"
#include "kernel/math-inl.h"
#include "kernel/onednn.h"
#include "kernel/onednn_attention.h"
#include "kernel/simd.h"
#include "ops/attention/attention.h"

#ifndef WEFT_ATTENTION_ROWS_
#define WEFT_ATTENTION_ROWS_
namespace weft {
namespace {

// A tile of queries of one head, while blocks of keys go by. Scores are in powers of two: multiplied by log2 e.
struct AttentionRows {
  std::int64_t rows, channels;  // channels of the head, D
  void* queries;                // [rows,D], f32 or bf16
  float* scores;                // [rows,N] for the N keys of the present block
  void* probabilities;          // [rows,N], not normalised; the scores' memory in f32
  float* sums;                  // [rows,D], of probability times value
  float* largest;               // [rows], of all scores so far
  float* totals;                // [rows], of all probabilities so far
};

}  // namespace
}  // namespace weft
#endif

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;

// Two vectors as the element type that is multiplied: bf16 values are stored as their 16 bits, rounded to nearest even.
// A NaN may become an infinity: whoever stores probabilities sees to it that NaN gets into the row's sum.
HWY_INLINE void store_pair(F32 d, hn::Vec<F32> low, hn::Vec<F32> high, float* to) {
  hn::StoreU(low, d, to);
  hn::StoreU(high, d, to + hn::Lanes(d));
}
HWY_INLINE void store_pair(F32 /*d*/, hn::Vec<F32> low, hn::Vec<F32> high, std::uint16_t* to) {
#if HWY_TARGET == HWY_SCALAR
  to[0] = to_bfloat16(hn::GetLane(low)).bits;
  to[1] = to_bfloat16(hn::GetLane(high)).bits;
#else
  const hn::RebindToUnsigned<F32> d32;
  const hn::Repartition<std::uint16_t, F32> d16;
  const auto rounded = [&](hn::Vec<F32> values) HWY_ATTR {  // in the upper half of each element
    const auto bits = hn::BitCast(d32, values);
    const auto last = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
    return hn::BitCast(d16, hn::Add(hn::Add(bits, hn::Set(d32, 0x7FFF)), last));
  };
  hn::StoreU(hn::ConcatOdd(d16, rounded(high), rounded(low)), d16, to);
#endif
}

// The first `count` < 2·Lanes(d) elements of a pair.
template <class T>
void store_pair_n(F32 d, hn::Vec<F32> low, hn::Vec<F32> high, T* to, std::size_t count) {
  HWY_ALIGN T lanes[2 * hn::MaxLanes(F32())];
  store_pair(d, low, high, lanes);
  std::copy_n(lanes, count, to);
}

// y[i] = f(x[i]), two vectors at a time; what f makes of elements beyond the row's end goes nowhere.
template <class T, class F>
HWY_INLINE void transform_row(const float* x, T* y, std::size_t count, const F& f) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    store_pair(d, f(hn::LoadU(d, x + i), lanes), f(hn::LoadU(d, x + i + lanes), lanes), y + i);
  }
  if (i == count) return;
  const std::size_t rest = count - i;
  const auto low = f(rest < lanes ? load_n(d, x + i, rest) : hn::LoadU(d, x + i), std::min(rest, lanes));
  const std::size_t more = rest - std::min(rest, lanes);
  const auto high = f(more > 0 ? load_n(d, x + i + lanes, more) : hn::Zero(d), more);
  store_pair_n(d, low, high, y + i, rest);
}

// y = factor · x
template <class T>
void scale_row(const float* x, float factor, T* y, std::size_t count) {
  const auto f = hn::Set(F32(), factor);
  transform_row(x, y, count, [f](hn::Vec<F32> v, std::size_t) HWY_ATTR { return hn::Mul(f, v); });
}

float largest_of(const float* x, std::size_t count, float start) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  auto a = hn::Set(d, start);
  auto b = a;
  std::size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    a = hn::Max(a, hn::LoadU(d, x + i));
    b = hn::Max(b, hn::LoadU(d, x + i + lanes));
  }
  for (; i + lanes <= count; i += lanes) a = hn::Max(a, hn::LoadU(d, x + i));
  float largest = hn::GetLane(hn::MaxOfLanes(d, hn::Max(a, b)));
  for (; i < count; ++i) largest = std::max(largest, x[i]);
  return largest;
}

// y = 2^(x − shift) of a row of scores, none of which is larger than `shift`; returns their sum.
template <class T>
float exponentials(const float* x, float shift, T* y, std::size_t count) {
  const F32 d;
  const auto s = hn::Set(d, shift);
  auto sum = hn::Zero(d);
  transform_row(x, y, count, [&](hn::Vec<F32> v, std::size_t n) HWY_ATTR {
    auto e = exp2_of_negative(d, hn::Sub(v, s));
    if (n < hn::Lanes(d)) e = hn::IfThenElseZero(hn::FirstN(d, n), e);
    sum = hn::Add(sum, e);
    return e;
  });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <class T>
void softmax_rows(const AttentionRows& tile, std::size_t keys) {
  const F32 d;
  const auto channels = static_cast<std::size_t>(tile.channels);
  for (std::size_t row = 0; row < static_cast<std::size_t>(tile.rows); ++row) {
    const float* const scores = tile.scores + row * keys;
    const float before = tile.largest[row];
    const float largest = largest_of(scores, keys, before);
    if (largest != before) {  // what there is of the row was relative to a smaller maximum
      const float correction = hn::GetLane(exp2_of_negative(d, hn::Set(d, before - largest)));
      tile.largest[row] = largest;
      tile.totals[row] *= correction;
      scale_row(tile.sums + row * channels, correction, tile.sums + row * channels, channels);
    }
    tile.totals[row] += exponentials(scores, largest, static_cast<T*>(tile.probabilities) + row * keys, keys);
  }
}

template <class T>
void start_rows(const AttentionRows& tile, const float* q, std::int64_t q_step, float factor) {
  const auto channels = static_cast<std::size_t>(tile.channels);
  for (std::int64_t row = 0; row < tile.rows; ++row) {
    scale_row(q + row * q_step, factor, static_cast<T*>(tile.queries) + row * tile.channels, channels);
  }
}

void attention_start(const AttentionRows& tile, bool bf16, const float* q, std::int64_t q_step, float factor) {
  if (bf16) {
    start_rows<std::uint16_t>(tile, q, q_step, factor);
  } else {
    start_rows<float>(tile, q, q_step, factor);
  }
  std::fill_n(tile.sums, tile.rows * tile.channels, 0.0F);
  std::fill_n(tile.largest, tile.rows, -std::numeric_limits<float>::infinity());
  std::fill_n(tile.totals, tile.rows, 0.0F);
}

void attention_softmax(const AttentionRows& tile, bool bf16, std::size_t keys) {
  if (bf16) {
    softmax_rows<std::uint16_t>(tile, keys);
  } else {
    softmax_rows<float>(tile, keys);
  }
}

void attention_finish(const AttentionRows& tile, float* y, std::int64_t y_step) {
  for (std::int64_t row = 0; row < tile.rows; ++row) {
    scale_row(tile.sums + row * tile.channels, 1 / tile.totals[row], y + row * y_step,
              static_cast<std::size_t>(tile.channels));
  }
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(attention_start);
HWY_EXPORT(attention_softmax);
HWY_EXPORT(attention_finish);

std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::size_t whole_lines(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Rows of a tile of queries: few enough for scores and accumulators to stay in the second-level cache, many enough to
// make use of the packed keys; and some tiles for each thread.
std::int64_t choose_tile(std::int64_t queries, std::int64_t heads, int threads) {
  constexpr std::int64_t kLargest = 128;
  constexpr std::int64_t kSmallest = 16;
  const std::int64_t wanted = std::max(quotient_up(queries, kLargest), quotient_up(std::int64_t{2} * threads, heads));
  return quotient_up(queries, std::clamp<std::int64_t>(wanted, 1, quotient_up(queries, kSmallest)));
}

// Equal blocks of whole vectors but for the last.
std::int64_t choose_block(std::int64_t keys) {
  constexpr std::int64_t kLargest = 384;
  return quotient_up(quotient_up(keys, quotient_up(keys, kLargest)), 16) * 16;
}

class AttentionKernel final : public Kernel {
 public:
  AttentionKernel(const Attention& attributes, const KernelRequest& request)
      : batch_(request.in[0].shape[0]),
        queries_(request.in[0].shape[1]),
        keys_(request.in[1].shape[1]),
        channels_(request.in[0].shape[2]),
        heads_(attributes.heads),
        bf16_(request.precision != DType::kF32 && onednn::multiplies_natively(DType::kBF16)),
        factor_(static_cast<float>(attributes.factor(channels_ / heads_) * std::numbers::log2e)),
        tile_(choose_tile(queries_, batch_ * heads_, request.threads)),
        tiles_(quotient_up(queries_, tile_)),
        block_(choose_block(keys_)),
        slots_(static_cast<std::size_t>(request.threads)),
        products_({.queries = queries_,
                   .keys = keys_,
                   .channels = head_channels(),
                   .row_step = channels_,
                   .tile = tile_,
                   .block = block_,
                   .precision = bf16_ ? DType::kBF16 : DType::kF32}) {
    const std::size_t item = bf16_ ? sizeof(std::uint16_t) : sizeof(float);
    const auto rows = static_cast<std::size_t>(tile_);
    const auto d = static_cast<std::size_t>(head_channels());
    const auto n = static_cast<std::size_t>(block_);
    std::size_t end = 0;
    const auto take = [&](std::size_t bytes) { return std::exchange(end, end + whole_lines(bytes)); };
    queries_at_ = take(rows * d * item);
    scores_at_ = take(rows * n * sizeof(float));
    probabilities_at_ = bf16_ ? take(rows * n * item) : scores_at_;
    sums_at_ = take(rows * d * sizeof(float));
    largest_at_ = take(rows * sizeof(float));
    totals_at_ = take(rows * sizeof(float));
    products_at_ = take(products_.scratch_bytes());
    slot_bytes_ = end;
  }

  std::string_view name() const override { return bf16_ ? "onednn:attention_bf16" : "onednn:attention"; }

  std::size_t scratch_bytes() const override {
    return products_.packed_bytes() * static_cast<std::size_t>(batch_ * heads_) + slot_bytes_ * slots_;
  }

  void run(const KernelArgs& args) const noexcept override {
    const std::int64_t packings = products_.blocks() * 2;
    args.workers.parallel_for(batch_ * heads_ * packings, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) pack(args, i / packings, i % packings / 2, i % 2 == 0);
    });
    args.workers.parallel_for(batch_ * heads_ * tiles_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) run_tile(args, i / tiles_, i % tiles_ * tile_);
    });
  }

 private:
  std::int64_t head_channels() const { return channels_ / heads_; }
  // Where head `head`, counted over the whole batch, has its first channel in tensors of `tokens` tokens a picture.
  std::int64_t first(std::int64_t head, std::int64_t tokens) const {
    return head / heads_ * tokens * channels_ + head % heads_ * head_channels();
  }
  std::byte* packed(const KernelArgs& args, std::int64_t head) const {
    return args.scratch + products_.packed_bytes() * static_cast<std::size_t>(head);
  }

  void pack(const KernelArgs& args, std::int64_t head, std::int64_t block, bool keys) const {
    const std::int64_t from = first(head, keys_);
    if (keys) {
      products_.pack_keys(args.input(1) + from, block, packed(args, head));
    } else {
      products_.pack_values(args.input(2) + from, block, packed(args, head));
    }
  }

  void run_tile(const KernelArgs& args, std::int64_t head, std::int64_t query) const {
    std::byte* const slot =
        packed(args, batch_ * heads_) + slot_bytes_ * static_cast<std::size_t>(args.workers.index());
    const auto floats = [slot](std::size_t at) { return reinterpret_cast<float*>(slot + at); };
    const AttentionRows rows{.rows = std::min(tile_, queries_ - query),
                             .channels = head_channels(),
                             .queries = slot + queries_at_,
                             .scores = floats(scores_at_),
                             .probabilities = slot + probabilities_at_,
                             .sums = floats(sums_at_),
                             .largest = floats(largest_at_),
                             .totals = floats(totals_at_)};
    const std::int64_t from = first(head, queries_) + query * channels_;
    HWY_DYNAMIC_DISPATCH(attention_start)(rows, bf16_, args.input(0) + from, channels_, factor_);
    products_.run({.rows = rows.rows,
                   .queries = rows.queries,
                   .scores = rows.scores,
                   .probabilities = rows.probabilities,
                   .sums = rows.sums,
                   .packed = packed(args, head),
                   .scratch = slot + products_at_},
                  [&](std::int64_t keys) {
                    HWY_DYNAMIC_DISPATCH(attention_softmax)(rows, bf16_, static_cast<std::size_t>(keys));
                  });
    HWY_DYNAMIC_DISPATCH(attention_finish)(rows, args.output() + from, channels_);
  }

  std::int64_t batch_, queries_, keys_, channels_, heads_;
  bool bf16_;
  float factor_;  // of the scores, times log2 e
  std::int64_t tile_, tiles_, block_;
  std::size_t slots_;
  onednn::AttentionProducts products_;
  // Within a slot, the scratch of one thread. Slots follow the packed keys and values of all heads.
  std::size_t queries_at_, scores_at_, probabilities_at_, sums_at_, largest_at_, totals_at_, products_at_, slot_bytes_;
};

class EmptyAttentionKernel final : public Kernel {
 public:
  std::string_view name() const override { return "empty:attention"; }
  void run(const KernelArgs&) const noexcept override {}
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Attention& attributes, const KernelRequest& request) {
  if (request.out[0].shape.elements() == 0) return std::make_unique<EmptyAttentionKernel>();
  return std::make_unique<AttentionKernel>(attributes, request);
}

}  // namespace weft
#endif
