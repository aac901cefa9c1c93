// Softmax attention of one head in linear memory: tiles of queries go over blocks of packed keys and values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/threads.h"
#include "kernel/attention_rows.h"
#include "kernel/onednn_attention.h"

namespace weft {

/// Elements behind a tile of scores that whoever fills it may overwrite, so as to write whole vectors.
constexpr std::size_t kBiasSlack = 16;

class AttentionTiles {
 public:
  struct Sizes {
    std::int64_t heads;     // of all pictures (and windows), each with tiles of its own
    std::int64_t queries;   // of a head, ≥ 1
    std::int64_t keys;      // of a head, ≥ 1
    std::int64_t channels;  // of a head, D
    std::int64_t row_step;  // elements from one key (value) to the next where these are packed
    double factor;          // of the scores
    bool biased = false;    // something is added to the scores
    int threads;
    DType precision;  // of the session: products are bf16 unless it is kF32
  };
  /// Throws UnsupportedError where there are no such products.
  explicit AttentionTiles(const Sizes& sizes);

  bool is_bf16() const { return bf16_; }
  /// Tiles of a head; rows of a full one, the last one has the rest.
  std::int64_t tiles() const { return tiles_; }
  std::int64_t tile_rows() const { return tile_; }
  /// Blocks of a head's keys; keys of a full one, the last one has the rest.
  std::int64_t blocks() const { return products_.blocks(); }
  std::int64_t block_keys() const { return block_; }
  /// Packed keys and values of one head, and the memory of one running tile; multiples of 64.
  std::size_t packed_bytes() const { return products_.packed_bytes(); }
  std::size_t slot_bytes() const { return slot_bytes_; }

  /// From the first row of a block of keys (values) in f32.
  void pack_keys(const float* k, std::int64_t block, std::byte* packed) const noexcept {
    products_.pack_keys(k, block, packed);
  }
  void pack_values(const float* v, std::int64_t block, std::byte* packed) const noexcept {
    products_.pack_values(v, block, packed);
  }

  /// Makes [rows,keys] of what is added to the scores, in powers of two (times log2 e), of the keys from `first` on.
  using Bias = FunctionRef<void(std::int64_t first, std::int64_t keys, float* bias)>;
  /// Tile `tile` of a head: q and y are its first query and result, `step` elements from one to the next.
  void run(std::int64_t tile, const float* q, std::int64_t q_step, float* y, std::int64_t y_step,
           const std::byte* packed, std::byte* slot, Bias bias) const noexcept;
  std::int64_t rows(std::int64_t tile) const { return tile == tiles_ - 1 ? queries_ - tile * tile_ : tile_; }

 private:
  std::int64_t queries_, channels_;
  float factor_;  // times log2 e
  bool bf16_, biased_;
  std::int64_t tile_, tiles_, block_;
  onednn::AttentionProducts products_;
  std::size_t queries_at_, scores_at_, probabilities_at_, sums_at_, largest_at_, totals_at_, products_at_, slot_bytes_;
};

}  // namespace weft
