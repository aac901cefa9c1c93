#include "kernel/attention_tiles.h"

#include <algorithm>
#include <numbers>
#include <utility>

#include "kernel/onednn.h"
#include "kernel/scratch.h"

namespace weft {
namespace {

std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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

}  // namespace

AttentionTiles::AttentionTiles(const Sizes& s)
    : queries_(s.queries),
      channels_(s.channels),
      factor_(static_cast<float>(s.factor * std::numbers::log2e)),
      bf16_(s.precision != DType::kF32 && onednn::multiplies_natively(DType::kBF16)),
      biased_(s.biased),
      tile_(choose_tile(s.queries, s.heads, s.threads)),
      tiles_(quotient_up(s.queries, tile_)),
      block_(choose_block(s.keys)),
      products_({.queries = s.queries,
                 .keys = s.keys,
                 .channels = s.channels,
                 .row_step = s.row_step,
                 .tile = tile_,
                 .block = block_,
                 .precision = bf16_ ? DType::kBF16 : DType::kF32,
                 .biased = s.biased}) {
  const std::size_t item = bf16_ ? sizeof(std::uint16_t) : sizeof(float);
  const auto rows = static_cast<std::size_t>(tile_);
  const auto d = static_cast<std::size_t>(channels_);
  const auto n = static_cast<std::size_t>(block_);
  std::size_t end = 0;
  const auto take = [&](std::size_t bytes) { return std::exchange(end, end + whole_lines(bytes)); };
  queries_at_ = take(rows * d * item);
  scores_at_ = take((rows * n + kBiasSlack) * sizeof(float));
  probabilities_at_ = bf16_ ? take(rows * n * item) : scores_at_;
  sums_at_ = take(rows * d * sizeof(float));
  largest_at_ = take(rows * sizeof(float));
  totals_at_ = take(rows * sizeof(float));
  products_at_ = take(products_.scratch_bytes());
  slot_bytes_ = end;
}

void AttentionTiles::run(std::int64_t tile, const float* q, std::int64_t q_step, float* y, std::int64_t y_step,
                         const std::byte* packed, std::byte* slot, Bias bias) const noexcept {
  const auto floats = [slot](std::size_t at) { return reinterpret_cast<float*>(slot + at); };
  const AttentionRows rows_of{.rows = rows(tile),
                              .channels = channels_,
                              .queries = slot + queries_at_,
                              .scores = floats(scores_at_),
                              .probabilities = slot + probabilities_at_,
                              .sums = floats(sums_at_),
                              .largest = floats(largest_at_),
                              .totals = floats(totals_at_)};
  start_attention(rows_of, bf16_, q, q_step, factor_);
  products_.run(
      {.rows = rows_of.rows,
       .queries = rows_of.queries,
       .scores = rows_of.scores,
       .probabilities = rows_of.probabilities,
       .sums = rows_of.sums,
       .packed = packed,
       .scratch = slot + products_at_},
      [&](std::int64_t first, std::int64_t keys) {
        if (biased_) bias(first, keys, rows_of.scores);
      },
      [&](std::int64_t keys) { attention_softmax(rows_of, bf16_, keys); });
  finish_attention(rows_of, y, y_step);
}

}  // namespace weft
