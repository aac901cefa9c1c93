// The kernel without a bias, or with one filter for each group of keys: a block of channels of one batch entry at a
// time. What a filter reaches is summed tap by tap; the rest of its row of the grid from sums before and behind, the
// rows above and below as a whole. Nothing is subtracted, so nothing cancels.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/aft/aft_sums_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <utility>

#include "kernel/scratch.h"
#include "ops/aft/aft_weigh-inl.h"

#ifndef WEFT_AFT_SUMS_BLOCK_
#define WEFT_AFT_SUMS_BLOCK_
namespace weft {
namespace {

constexpr std::int64_t kBlock = 32;           // channels at a time: whole vectors of any size
constexpr std::int64_t kSummed = 2 * kBlock;  // numbers to a token: Σ e^k·v and Σ e^k of each

// One block of one batch entry.
struct AftBlock {
  const AftForm& form;
  const float *k, *v, *bias;  // k and v: of the entry
  float* y;                   // of the entry
  std::int64_t first;         // channel
  // Memory. For each token, or column of the grid, kSummed numbers:
  float* weighed;                     // [T]
  float *before, *behind;             // [width + 1], the sums of columns [0,x) and [x,width)
  float* band;                        // [width], the rows with a bias added up where they are several
  float* row_totals;                  // [height]
  float* taps;                        // [taps + 1,kBlock], the last is of what has no bias
  std::array<float, kBlock>& spread;  // of the exponents of each channel

  std::int64_t there() const { return std::min(kBlock, form.channels - first); }
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

constexpr int kTogether = 4;  // vectors: of 16 lanes they are the numbers of a token

// Running sums of kTogether neighbouring vectors.
struct Running {
  CarefulSum<V> sums[kTogether];

  HWY_INLINE Running() {
#pragma GCC unroll 4
    for (CarefulSum<V>& sum : sums) sum = {hn::Zero(D()), hn::Zero(D())};
  }
  HWY_INLINE void add(const float* x) {
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kTogether; ++i) sums[i].add(hn::LoadU(D(), x + i * hn::Lanes(D())));
  }
  HWY_INLINE void store(float* to) const {
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kTogether; ++i) hn::StoreU(sums[i].total(), D(), to + i * hn::Lanes(D()));
  }
};

// Calls f(lane) for each kTogether vectors of the numbers of a token.
template <class F>
HWY_INLINE void for_each_group(F f) {
  for (std::int64_t i = 0; i < kSummed; i += kTogether * static_cast<std::int64_t>(hn::Lanes(D()))) f(i);
}

void sum_simply(const AftBlock& b) {
  const AftForm& f = b.form;
  HWY_ALIGN float sums[kSummed];
  for_each_group([&](std::int64_t i) HWY_ATTR {
    Running sum;
    for (std::int64_t t = 0; t < f.tokens; ++t) {
      sum.add(b.weighed + t * kSummed + i);
      if (f.causal) sum.store(b.weighed + t * kSummed + i);
    }
    sum.store(sums + i);
  });
  if (!f.causal) divide(sums, kBlock, b.there(), b.y + b.first);
  for (std::int64_t t = 0; t < f.tokens; ++t) {
    float* const y = b.y + t * f.channels + b.first;
    if (f.causal) {
      divide(b.weighed + t * kSummed, kBlock, b.there(), y);
    } else if (t > 0) {
      std::copy_n(b.y + b.first, b.there(), y);
    }
  }
}

// Taps as e^{bias − m}, m the largest of the filter and of 0, for each channel.
void weigh_taps(const AftBlock& b) {
  const D d;
  const AftForm& f = b.form;
  const std::int64_t taps = f.taps();
  for (std::int64_t c = 0; c < kBlock; ++c) {
    const std::int64_t key = f.key_of(std::min(b.first + c, f.channels - 1));
    const float* const filter = b.bias + key / (f.keys / f.filters) * taps;
    float high = 0;
    float low = 0;
    for (std::int64_t i = 0; i < taps; ++i) {
      high = std::max(high, filter[i]);
      low = std::min(low, filter[i]);
    }
    b.spread[static_cast<std::size_t>(c)] += high - low;
    for (std::int64_t i = 0; i <= taps; ++i) b.taps[i * kBlock + c] = (i < taps ? filter[i] : 0) - high;
  }
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < (taps + 1) * kBlock; i += lanes) {
    hn::StoreU(exp_of_weight(d, hn::LoadU(d, b.taps + i)), d, b.taps + i);
  }
}

// The sums of the columns of row `y` before and behind each, with those of the rows that have no bias.
void sum_columns(const AftBlock& b, std::int64_t y) {
  const D d;
  const AftForm& f = b.form;
  const AftRange rows = f.biased_rows(y);
  const float* columns = b.weighed + rows.begin * f.width * kSummed;
  if (rows.end - rows.begin > 1) {
    for (std::int64_t i = 0; i < f.width * kSummed; i += static_cast<std::int64_t>(hn::Lanes(d))) {
      V sum = hn::LoadU(d, columns + i);
      for (std::int64_t row = 1; row < rows.end - rows.begin; ++row) {
        sum = hn::Add(sum, hn::LoadU(d, columns + row * f.width * kSummed + i));
      }
      hn::StoreU(sum, d, b.band + i);
    }
    columns = b.band;
  }
  for_each_group([&](std::int64_t i) HWY_ATTR {
    Running before;
    for (std::int64_t row = 0; row < f.height; ++row) {
      if (row < rows.begin || row >= rows.end) before.add(b.row_totals + row * kSummed + i);
    }
    for (std::int64_t x = 0; x <= f.width; ++x) {
      before.store(b.before + x * kSummed + i);
      if (x < f.width) before.add(columns + x * kSummed + i);
    }
    if (f.causal) return;
    Running behind;
    for (std::int64_t x = f.width; x >= 0; --x) {
      if (x < f.width) behind.add(columns + x * kSummed + i);
      behind.store(b.behind + x * kSummed + i);
    }
  });
}

// The sums of the token at (y,x), for two neighbouring vectors of channels from `c` on.
HWY_INLINE void sum_taps(const AftBlock& b, std::int64_t y, std::int64_t x, std::int64_t c, float* sums) {
  const D d;
  const AftForm& f = b.form;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const AftRange rows = f.biased_rows(y);
  const AftRange columns = f.biased_columns(x);
  const float* const before = b.before + columns.begin * kSummed + c;
  const float* const behind = b.behind + columns.end * kSummed + c;
  const float* const unbiased = b.taps + f.taps() * kBlock + c;
  const auto rest = [&](std::int64_t i, std::int64_t of_channel) HWY_ATTR {
    const V sum = hn::LoadU(d, before + i);
    return hn::Mul(f.causal ? sum : hn::Add(sum, hn::LoadU(d, behind + i)), hn::LoadU(d, unbiased + of_channel));
  };
  V numerator0 = rest(0, 0);
  V numerator1 = rest(lanes, lanes);
  V denominator0 = rest(kBlock, 0);
  V denominator1 = rest(kBlock + lanes, lanes);
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* at = b.weighed + (row * f.width + columns.begin) * kSummed + c;
    const float* tap = b.taps + f.tap(y, x, row, columns.begin) * kBlock + c;
    for (std::int64_t column = columns.begin; column < columns.end; ++column, at += kSummed, tap += kBlock) {
      const V tap0 = hn::LoadU(d, tap);
      const V tap1 = hn::LoadU(d, tap + lanes);
      numerator0 = hn::MulAdd(tap0, hn::LoadU(d, at), numerator0);
      numerator1 = hn::MulAdd(tap1, hn::LoadU(d, at + lanes), numerator1);
      denominator0 = hn::MulAdd(tap0, hn::LoadU(d, at + kBlock), denominator0);
      denominator1 = hn::MulAdd(tap1, hn::LoadU(d, at + kBlock + lanes), denominator1);
    }
  }
  hn::StoreU(numerator0, d, sums + c);
  hn::StoreU(numerator1, d, sums + c + lanes);
  hn::StoreU(denominator0, d, sums + kBlock + c);
  hn::StoreU(denominator1, d, sums + kBlock + c + lanes);
}

void sum_filtered(const AftBlock& b) {
  const AftForm& f = b.form;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  for (std::int64_t row = 0; row < f.height; ++row) {
    for_each_group([&](std::int64_t i) HWY_ATTR {
      Running sum;
      for (std::int64_t x = 0; x < f.width; ++x) sum.add(b.weighed + (row * f.width + x) * kSummed + i);
      sum.store(b.row_totals + row * kSummed + i);
    });
  }
  HWY_ALIGN float sums[kSummed];
  for (std::int64_t y = 0; y < f.height; ++y) {
    sum_columns(b, y);
    for (std::int64_t x = 0; x < f.width; ++x) {
      for (std::int64_t c = 0; c < kBlock; c += 2 * lanes) sum_taps(b, y, x, c, sums);
      divide(sums, kBlock, b.there(), b.y + (y * f.width + x) * f.channels + b.first);
    }
  }
}

void sum_block(const AftBlock& b) {
  std::array<float, kBlock> largest;
  weigh(b.form, b.k, b.v, b.first, kBlock, b.weighed, b.spread.data(), largest.data());
  if (b.form.filters == 0) return sum_simply(b);
  weigh_taps(b);
  sum_filtered(b);
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(sum_block);

class AftSumsKernel final : public Kernel {
 public:
  AftSumsKernel(const AftForm& form, int threads) : form_(form), threads_(threads) {}

  std::string_view name() const override { return "hwy:aft"; }
  std::size_t scratch_bytes() const override { return static_cast<std::size_t>(threads_) * thread_bytes(); }

  void run(const KernelArgs& args) const noexcept override {
    const float* const bias = form_.filters > 0 ? args.input(2) : nullptr;
    const std::int64_t blocks = (form_.channels + kBlock - 1) / kBlock;
    args.workers.parallel_for(form_.batch * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      std::byte* const memory = args.scratch + static_cast<std::size_t>(args.workers.index()) * thread_bytes();
      auto* const log_memory = reinterpret_cast<AftSums*>(memory);
      auto* next = reinterpret_cast<float*>(memory + log_bytes());
      const auto take = [&](std::int64_t tokens) { return std::exchange(next, next + tokens * kSummed); };
      float* const weighed = take(form_.tokens);
      float* const before = take(of_filters(form_.width + 1));
      float* const behind = take(of_filters(form_.width + 1));
      float* const band = take(of_filters(band_width()));
      float* const row_totals = take(of_filters(form_.height));
      float* const taps = take(of_filters(form_.taps() / 2 + 1));  // half as wide
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t entry = i / blocks;
        const std::int64_t tokens = entry * form_.tokens;
        std::array<float, kBlock> spread;
        const AftBlock block{.form = form_,
                             .k = args.input(0) + tokens * form_.keys,
                             .v = args.input(1) + tokens * form_.channels,
                             .bias = bias,
                             .y = args.output() + tokens * form_.channels,
                             .first = i % blocks * kBlock,
                             .weighed = weighed,
                             .before = before,
                             .behind = behind,
                             .band = band,
                             .row_totals = row_totals,
                             .taps = taps,
                             .spread = spread};
        HWY_DYNAMIC_DISPATCH(sum_block)(block);
        for (std::int64_t c = 0; c < block.there(); ++c) {
          if (spread[static_cast<std::size_t>(c)] <= kAftSpan) continue;  // a NaN is not
          aft_in_log_space(form_, args.input(0), args.input(1), bias, args.output(), entry, block.first + c,
                           {0, form_.tokens}, log_memory);
        }
      }
    });
  }

 private:
  std::int64_t of_filters(std::int64_t tokens) const { return form_.filters > 0 ? tokens : 0; }
  std::int64_t band_width() const { return form_.kernel_h > 1 ? form_.width : 0; }
  std::size_t log_bytes() const { return whole_lines(aft_log_sums(form_) * sizeof(AftSums)); }
  std::size_t thread_bytes() const {
    const std::int64_t tokens =
        form_.tokens + of_filters(2 * (form_.width + 1) + band_width() + form_.height + form_.taps() / 2 + 1);
    return log_bytes() + static_cast<std::size_t>(tokens * kSummed) * sizeof(float);
  }

  AftForm form_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make_aft_sums(const AftForm& form, int threads) {
  return std::make_unique<AftSumsKernel>(form, threads);
}

}  // namespace weft
#endif
