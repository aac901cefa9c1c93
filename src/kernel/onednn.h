// The one place that multiplies matrices, with oneDNN (v2.6; the few calls that changed in v3 are in onednn*.cc). A
// single row with many weights is multiplied by kernel/matvec.h, on oneDNN's packed weights.
//
// Parallelism is weft's own: oneDNN, an OpenMP build in Debian, is always called on one thread, inside a tile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "kernel/encode.h"
#include "kernel/kernel.h"
#include "weft/tensor.h"

namespace weft::onednn {

/// Whether this CPU multiplies these elements (kF32, kBF16, kI8) in hardware.
bool multiplies_natively(DType precision);

/// How a weight of other axes becomes [N,K], N being its first one. Only the packed form of that is kept.
struct Arrangement {
  std::string_view name;                     // tells the forms of a weight apart in the cache
  Tensor (*apply)(const Tensor&) = nullptr;  // null: it is [N,K] already
};

/// y = x·Wᵀ + b for tiles of rows, the weights prepacked. W is [N,K], b is [N] or absent, y is f32 [rows,N].
/// x is [rows,K] in the encoding of `precision` (kernel/encode.h; f32 as it is). In kI8 W is rounded to 8 bits, each
/// row of W on its own scale, and y is raw: to be decoded.
class Product {
 public:
  /// Packed weights live in `packs`. The weight may be of any floating type. Throws UnsupportedError when oneDNN has no
  /// such product.
  Product(const Tensor& weight, const Tensor* bias, DType precision, PackCache& packs,
          const Arrangement& arrangement = {});
  ~Product();
  Product(Product&&) noexcept;

  DType precision() const;
  /// Applied to y in passing; kF32 and kBF16 only.
  void set_activation(Activation activation);
  /// kF32 or, when the precision is that, kBF16.
  void set_output(DType encoding);
  /// What makes y of the raw y of a kI8 product.
  Decoding decoding() const;
  /// Prepares for tiles of `tile_rows` and for the rest of `rows` that the last one has.
  void set_rows(std::int64_t rows, std::int64_t tile_rows);
  /// Scratch for one running tile or part; a multiple of 64.
  std::size_t scratch_bytes() const;
  /// One tile, of one of the heights prepared for.
  void run(const std::byte* x, std::byte* y, std::int64_t rows, std::byte* scratch) const noexcept;

  /// Prepares for all rows at once instead, in up to `parts` parts of neighbouring columns: few rows take as long as it
  /// takes to read the weights. Returns how many parts there are; one where oneDNN lays the weights out otherwise.
  std::int64_t set_parts(std::int64_t rows, std::int64_t parts);
  /// One part's columns of all rows of y.
  void run_part(const std::byte* x, std::byte* y, std::int64_t part, std::byte* scratch) const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::onednn
