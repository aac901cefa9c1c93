// The one place that talks to oneDNN (v2.6; the few calls that changed in v3 are all in onednn.cc).
//
// Parallelism is weft's own: oneDNN, an OpenMP build in Debian, is always called on one thread, inside a tile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernel/kernel.h"
#include "weft/tensor.h"

namespace weft::onednn {

/// y = x·Wᵀ + b for tiles of rows, the weights prepacked. x is [rows,K], W is [N,K], b is [N] or absent, y is [rows,N].
class TiledLinear {
 public:
  /// Prepares for `rows` rows cut into tiles for `threads` threads. Packed weights live in `packs`.
  TiledLinear(const Tensor& weight, const Tensor* bias, std::int64_t rows, int threads, PackCache& packs);
  ~TiledLinear();
  TiledLinear(TiledLinear&&) noexcept;

  /// Rows of a full tile; the last tile has the rest.
  std::int64_t tile_rows() const;
  /// Scratch for one running tile; a multiple of 64.
  std::size_t scratch_bytes() const;
  /// One tile: `rows` is tile_rows() or the rest.
  void run(const float* x, float* y, std::int64_t rows, std::byte* scratch) const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::onednn
