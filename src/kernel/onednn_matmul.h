// Products of matrices that are both new at each run, as in training: nothing is packed beforehand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "weft/tensor.h"

namespace weft::onednn {

/// C = A·B, or C += A·B, on the calling thread. A is [m,k], B is [k,n], in f32 or bf16; C is f32 [m,n] row by row.
struct MatmulShape {
  std::int64_t m, n, k;
  DType precision = DType::kF32;  // of A and B
  bool a_transposed = false;      // A lies in memory as [k,m]
  bool b_transposed = false;      // B lies in memory as [n,k]
  bool adds = false;              // to what C holds
};

class Matmul {
 public:
  /// Extents ≥ 1. Throws UnsupportedError when oneDNN has no such product.
  explicit Matmul(const MatmulShape& shape);
  ~Matmul();
  Matmul(Matmul&&) noexcept;

  /// A multiple of 64.
  std::size_t scratch_bytes() const;
  /// From several threads at once if need be. `scratch` is aligned to 64.
  void run(const void* a, const void* b, float* c, std::byte* scratch) const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::onednn
