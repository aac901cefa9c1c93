// The products of softmax attention: queries by keys, and probabilities by values, block by block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/threads.h"
#include "weft/tensor.h"

namespace weft::onednn {

/// Both products of one head for tiles of queries against blocks of keys. Keys and values are packed once into the
/// layout that oneDNN likes best; tiles then run over all blocks. Safe from several threads.
class AttentionProducts {
 public:
  struct Sizes {
    std::int64_t queries;   // tokens that ask
    std::int64_t keys;      // tokens that are asked, ≥ 1
    std::int64_t channels;  // of this head, D
    std::int64_t row_step;  // elements from one token to the next in k and v
    std::int64_t tile;      // queries of a full tile; the last one has the rest
    std::int64_t block;     // keys of a full block; the last one has the rest
    DType precision;        // kF32 or kBF16: of what is multiplied. Results are f32
    bool biased = false;    // the scores are added to what is in their place
  };

  /// Throws UnsupportedError where oneDNN has no such product on this machine.
  explicit AttentionProducts(const Sizes& sizes);
  ~AttentionProducts();
  AttentionProducts(AttentionProducts&&) noexcept;

  std::int64_t blocks() const;
  /// Packed keys and values of all blocks; a multiple of 64.
  std::size_t packed_bytes() const;
  /// Scratch for one running tile; a multiple of 64.
  std::size_t scratch_bytes() const;

  /// Packs block `block`, whose first token's keys or values are at `k`, `v`, into `packed`.
  void pack_keys(const float* k, std::int64_t block, std::byte* packed) const noexcept;
  void pack_values(const float* v, std::int64_t block, std::byte* packed) const noexcept;

  /// Where a tile finds and leaves its data. N is the number of keys in a block.
  struct Tile {
    std::int64_t rows;          // `tile` or the rest
    const void* queries;        // [rows,D] of the precision, scaled
    float* scores;              // [rows,N]
    const void* probabilities;  // [rows,N] of the precision; may be the scores' memory
    float* sums;                // [rows,D]: the values' products are added to these
    const std::byte* packed;
    std::byte* scratch;
  };
  /// For each block of keys: `prepare(first, N)`, `first` being the block's first key; scores = queries · keysᵀ, or
  /// added to what is there; `softmax(N)`, which makes probabilities of the scores; sums += probabilities · values.
  void run(const Tile& tile, FunctionRef<void(std::int64_t, std::int64_t)> prepare,
           FunctionRef<void(std::int64_t)> softmax) const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::onednn
