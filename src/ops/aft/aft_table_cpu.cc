// The kernel with a table of biases: tiles of its rows, as e^{b − m}, times [e^k·v | e^k]. A tile has the columns that
// its rows have a bias for, and some more, which weigh what tokens without a bias weigh; the rest comes from sums.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/aft/aft_table_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "kernel/onednn_matmul.h"
#include "kernel/scratch.h"
#include "ops/aft/aft_weigh-inl.h"

#ifndef WEFT_AFT_TABLE_TILES_
#define WEFT_AFT_TABLE_TILES_
namespace weft {
namespace {

constexpr std::int64_t kHighestTile = 64;      // rows
constexpr std::int64_t kLargestBlock = 192;    // channels
constexpr std::int64_t kMostCausalWidths = 8;  // of tiles, each a product prepared: a causal one leaves the rest out

constexpr std::int64_t tiles_of(std::int64_t n, std::int64_t largest) { return (n + largest - 1) / largest; }

struct AftTiling {
  explicit AftTiling(const AftForm& f)
      : tokens(f.tokens),
        tiles(tiles_of(tokens, kHighestTile)),
        height(tiles_of(tokens, tiles)),
        blocks(tiles_of(f.channels, kLargestBlock)),
        block((tiles_of(f.channels, blocks) + 15) / 16 * 16),  // whole vectors of any size
        window(f.window),
        causal(f.causal) {
    tiles = tiles_of(tokens, height);
  }

  std::int64_t tokens, tiles, height;
  std::int64_t blocks, block;  // of channels
  std::int64_t window;
  bool causal;

  std::int64_t summed() const { return 2 * block; }  // numbers to a token
  AftRange rows(std::int64_t tile) const { return {tile * height, std::min((tile + 1) * height, tokens)}; }
  // All are as wide where they reach `window` to either side.
  AftRange columns(std::int64_t tile) const {
    if (window < tokens) {
      const std::int64_t width = std::min(height + (causal ? 1 : 2) * (window - 1), tokens);
      const std::int64_t first = std::clamp<std::int64_t>(tile * height - window + 1, 0, tokens - width);
      return {first, first + width};
    }
    const std::int64_t step = tiles_of(tiles, kMostCausalWidths) * height;
    return {0, causal ? std::min(tiles_of(rows(tile).end, step) * step, tokens) : tokens};
  }
};

// What a tile of the table becomes.
struct AftTile {
  float* weights;   // [height, columns]
  float* unbiased;  // [height], of what has no bias
  float* spread;    // [height], of the exponents
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

// Of a block of channels, weighed as weigh() does: the sums of what is outside of each tile's columns, [tiles,summed].
void sum_outside(const AftTiling& tiling, const float* weighed, float* outside) {
  const D d;
  const std::int64_t summed = tiling.summed();
  for (std::int64_t i = 0; i < summed; i += static_cast<std::int64_t>(hn::Lanes(d))) {
    CarefulSum<V> before{hn::Zero(d), hn::Zero(d)};
    for (std::int64_t tile = 0, t = 0; tile < tiling.tiles; ++tile) {
      for (; t < tiling.columns(tile).begin; ++t) before.add(hn::LoadU(d, weighed + t * summed + i));
      hn::StoreU(before.total(), d, outside + tile * summed + i);
    }
    if (tiling.causal) continue;
    CarefulSum<V> behind{hn::Zero(d), hn::Zero(d)};
    for (std::int64_t tile = tiling.tiles, t = tiling.tokens; tile-- > 0;) {
      for (; t > tiling.columns(tile).end; --t) behind.add(hn::LoadU(d, weighed + (t - 1) * summed + i));
      float* const to = outside + tile * summed + i;
      hn::StoreU(hn::Add(hn::LoadU(d, to), behind.total()), d, to);
    }
  }
}

// The largest and the smallest of `count` biases; −inf, which hides a token, is no smallest one.
void extremes(const float* bias, std::int64_t count, float& high, float& low) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V none = hn::Set(d, std::numeric_limits<float>::infinity());
  V highest = hn::Neg(none);
  V lowest = none;
  std::int64_t i = 0;
  const auto see = [&](V x) HWY_ATTR {
    highest = hn::Max(highest, x);
    lowest = hn::Min(lowest, hn::IfThenElse(hn::Eq(x, hn::Neg(none)), none, x));
  };
  for (; i + lanes <= count; i += lanes) see(hn::LoadU(d, bias + i));
  for (; i < count; ++i) see(hn::Set(d, bias[i]));
  high = std::max(high, hn::GetLane(hn::MaxOfLanes(d, highest)));
  low = std::min(low, hn::GetLane(hn::MinOfLanes(d, lowest)));
}

void weigh_row(const float* bias, std::int64_t count, float largest, float* to) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V highest = hn::Set(d, largest);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(exp_of_weight(d, hn::Sub(hn::LoadU(d, bias + i), highest)), d, to + i);
  }
  if (i < count) {
    const auto rest = static_cast<std::size_t>(count - i);
    store_n(exp_of_weight(d, hn::Sub(load_n(d, bias + i, rest), highest)), d, to + i, rest);
  }
}

void weigh_tile(const AftForm& f, const AftTiling& tiling, const float* bias, std::int64_t tile, const AftTile& to) {
  const AftRange rows = tiling.rows(tile);
  const AftRange columns = tiling.columns(tile);
  float* weights = to.weights;
  for (std::int64_t t = rows.begin; t < rows.end; ++t, weights += columns.end - columns.begin) {
    const AftRange biased = f.biased_columns(t);
    const float* const row = bias + t * f.table_step + biased.begin;
    const bool all = biased.begin == 0 && (f.causal || biased.end == f.tokens);
    float high = all ? -std::numeric_limits<float>::infinity() : 0;
    float low = all ? std::numeric_limits<float>::infinity() : 0;
    extremes(row, biased.end - biased.begin, high, low);
    float unbiased = 0;
    if (!all) weigh_row(&unbiased, 1, high, &unbiased);
    std::fill(weights, weights + biased.begin - columns.begin, unbiased);
    weigh_row(row, biased.end - biased.begin, high, weights + biased.begin - columns.begin);
    std::fill(weights + biased.end - columns.begin, weights + columns.end - columns.begin, f.causal ? 0 : unbiased);
    to.unbiased[t - rows.begin] = unbiased;
    to.spread[t - rows.begin] = high - low;
  }
  // Rows that no token has: the product is as high everywhere.
  std::fill(weights, to.weights + tiling.height * (columns.end - columns.begin), 0.0F);
}

// The sums of a tile with what is outside, divided: `there` channels of y from `first` on.
void finish_tile(const AftForm& f, const AftTiling& tiling, std::int64_t tile, const AftTile& of, const float* outside,
                 float* sums, std::int64_t first, std::int64_t there, float* y) {
  const D d;
  const AftRange rows = tiling.rows(tile);
  for (std::int64_t t = rows.begin; t < rows.end; ++t, sums += tiling.summed()) {
    if (outside != nullptr) {
      const V unbiased = hn::Set(d, of.unbiased[t - rows.begin]);
      for (std::int64_t i = 0; i < tiling.summed(); i += static_cast<std::int64_t>(hn::Lanes(d))) {
        hn::StoreU(hn::MulAdd(unbiased, hn::LoadU(d, outside + i), hn::LoadU(d, sums + i)), d, sums + i);
      }
    }
    divide(sums, tiling.block, there, y + t * f.channels + first);
  }
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(weigh);
HWY_EXPORT(sum_outside);
HWY_EXPORT(weigh_tile);
HWY_EXPORT(finish_tile);

class AftTableKernel final : public Kernel {
 public:
  AftTableKernel(const AftForm& form, int threads) : form_(form), tiling_(form), threads_(threads) {
    for (std::int64_t tile = 0; tile < tiling_.tiles; ++tile) {
      const std::int64_t width = tile_width(tile);
      if (products_.contains(width)) continue;
      const auto made =
          products_.emplace(width, onednn::Matmul({.m = tiling_.height, .n = tiling_.summed(), .k = width})).first;
      product_bytes_ = std::max(product_bytes_, made->second.scratch_bytes());
      widest_ = std::max(widest_, width);
    }
  }

  std::string_view name() const override { return "onednn:aft"; }
  std::size_t scratch_bytes() const override {
    return weighed_bytes() + spread_bytes() + outside_bytes() + static_cast<std::size_t>(threads_) * thread_bytes();
  }

  void run(const KernelArgs& args) const noexcept override {
    auto* const weighed = reinterpret_cast<float*>(args.scratch);
    auto* const spread = reinterpret_cast<float*>(args.scratch + weighed_bytes());
    auto* const outside = reinterpret_cast<float*>(args.scratch + weighed_bytes() + spread_bytes());
    std::byte* const threads = args.scratch + weighed_bytes() + spread_bytes() + outside_bytes();
    const auto own = [&] { return threads + static_cast<std::size_t>(args.workers.index()) * thread_bytes(); };
    const std::int64_t summed = tiling_.summed();
    args.workers.parallel_for(blocks(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t tokens = i / tiling_.blocks * form_.tokens;
        float* const to = weighed + i * form_.tokens * summed;
        HWY_DYNAMIC_DISPATCH(weigh)
        (form_, args.input(0) + tokens * form_.keys, args.input(1) + tokens * form_.channels,
         i % tiling_.blocks * tiling_.block, tiling_.block, to, spread + i * tiling_.block,
         reinterpret_cast<float*>(own()));
        if (has_outside()) HWY_DYNAMIC_DISPATCH(sum_outside)(tiling_, to, outside + i * tiling_.tiles * summed);
      }
    });
    args.workers.parallel_for(blocks() * tiling_.tiles, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t block = i / tiling_.tiles;
        run_tile(args, block, i % tiling_.tiles, weighed + block * form_.tokens * summed,
                 spread + block * tiling_.block, has_outside() ? outside + i * summed : nullptr, own());
      }
    });
  }

 private:
  void run_tile(const KernelArgs& args, std::int64_t block, std::int64_t tile, const float* weighed,
                const float* spread, const float* outside, std::byte* memory) const {
    const auto take = [&](std::size_t bytes) { return std::exchange(memory, memory + whole_lines(bytes)); };
    const auto height = static_cast<std::size_t>(tiling_.height);
    auto* const log_memory = reinterpret_cast<AftSums*>(take(aft_log_sums(form_) * sizeof(AftSums)));
    auto* const sums = reinterpret_cast<float*>(take(sums_bytes()));
    const AftTile weights{.weights = reinterpret_cast<float*>(take(weights_bytes())),
                          .unbiased = reinterpret_cast<float*>(take(height * sizeof(float))),
                          .spread = reinterpret_cast<float*>(take(height * sizeof(float)))};
    const std::int64_t entry = block / tiling_.blocks;
    const std::int64_t first = block % tiling_.blocks * tiling_.block;
    const std::int64_t there = std::min(form_.channels - first, tiling_.block);
    HWY_DYNAMIC_DISPATCH(weigh_tile)(form_, tiling_, args.input(2), tile, weights);
    products_.find(tile_width(tile))
        ->second.run(weights.weights, weighed + tiling_.columns(tile).begin * tiling_.summed(), sums, memory);
    HWY_DYNAMIC_DISPATCH(finish_tile)
    (form_, tiling_, tile, weights, outside, sums, first, there, args.output() + entry * form_.tokens * form_.channels);
    const AftRange rows = tiling_.rows(tile);
    float largest = weights.spread[0];
    for (std::int64_t i = 1; i < rows.end - rows.begin; ++i) {
      if (!(weights.spread[i] <= largest)) largest = weights.spread[i];  // a NaN is the largest
    }
    for (std::int64_t c = 0; c < there; ++c) {
      if (largest + spread[c] <= kAftSpan) continue;
      aft_in_log_space(form_, args.input(0), args.input(1), args.input(2), args.output(), entry, first + c, rows,
                       log_memory);
    }
  }

  std::int64_t blocks() const { return form_.batch * tiling_.blocks; }
  bool has_outside() const { return widest_ < form_.tokens && form_.window < form_.tokens; }
  std::int64_t tile_width(std::int64_t tile) const { return tiling_.columns(tile).end - tiling_.columns(tile).begin; }
  std::size_t floats(std::int64_t count) const { return whole_lines(static_cast<std::size_t>(count) * sizeof(float)); }
  std::size_t weighed_bytes() const { return floats(blocks() * form_.tokens * tiling_.summed()); }
  std::size_t spread_bytes() const { return floats(blocks() * tiling_.block); }
  std::size_t outside_bytes() const { return has_outside() ? floats(blocks() * tiling_.tiles * tiling_.summed()) : 0; }
  std::size_t sums_bytes() const { return floats(tiling_.height * tiling_.summed()); }
  std::size_t weights_bytes() const { return floats(tiling_.height * widest_); }
  std::size_t thread_bytes() const {
    return whole_lines(aft_log_sums(form_) * sizeof(AftSums)) + sums_bytes() + weights_bytes() +
           2 * floats(tiling_.height) + product_bytes_;
  }

  AftForm form_;
  AftTiling tiling_;
  int threads_;
  std::map<std::int64_t, onednn::Matmul> products_;  // by their depth
  std::size_t product_bytes_ = 0;
  std::int64_t widest_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_aft_table(const AftForm& form, int threads) {
  return std::make_unique<AftTableKernel>(form, threads);
}

}  // namespace weft
#endif
