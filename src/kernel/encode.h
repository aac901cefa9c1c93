// How the rows of a product's input are stored when it multiplies in fewer bits.
//
//   kBF16   K bfloat16, rounded to nearest even
//   kI8     K bytes q, and beside them two f32, scale and low: x ≈ low + scale·q with the row's own low = min x and
//           scale = (max x − min x)/255, or 2^-126 where that is less
//
// Zero is exact where it is the smallest of its row (after a ReLU). A NaN or an infinity makes the whole row's product
// a NaN, as it would have to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernel/kernel.h"

namespace weft {

/// Scale and low of a kI8 row.
struct RowScale {
  float scale = 0;
  float low = 0;
};

/// From f32 rows [rows,K] to encoded ones: kBF16, or kI8 with the RowScale [rows] as the second output.
std::unique_ptr<RowKernel> make_encoder(DType encoding, std::int64_t rows, std::int64_t k);

/// Where a kernel writes rows.
struct EncodedRows {
  DType encoding = DType::kF32;
  std::byte* rows = nullptr;
  RowScale* scales = nullptr;  // kI8: of each row
  float* scratch = nullptr;    // kI8: for one row in f32
};

/// Output 0 of a row kernel: f32 rows of `columns` unless it is asked, once, to encode them (Kernel::encode_output).
/// Kernels write it through RowWriter (kernel/encode-inl.h).
class RowOutput {
 public:
  explicit RowOutput(std::int64_t columns) : columns_(columns) {}

  bool encode(DType encoding) {
    if (encoding_ != DType::kF32) return false;
    encoding_ = encoding;
    return true;
  }
  DType encoding() const { return encoding_; }
  std::size_t scratch_bytes() const {
    return encoding_ == DType::kI8 ? static_cast<std::size_t>(columns_) * sizeof(float) : 0;
  }
  EncodedRows at(const RowArgs& args) const {
    const bool scaled = encoding_ == DType::kI8;
    return {.encoding = encoding_,
            .rows = args.out[0],
            .scales = scaled ? args.output<RowScale>(1) : nullptr,
            .scratch = scaled ? reinterpret_cast<float*>(args.scratch) : nullptr};
  }

 private:
  std::int64_t columns_;
  DType encoding_ = DType::kF32;
};

/// What makes y of the raw result of a product of kI8 rows: y = scale·raw + low·sums + bias, [rows,N], and then the
/// activation.
struct Decoding {
  std::int64_t n = 0;
  const float* sums = nullptr;  // per column the sum of the weights
  const float* bias = nullptr;  // may be null
  Activation activation = Activation::kNone;
};

/// To rows of N in any encoding; f32 ones may be the raw ones.
void decode_rows(const Decoding& decoding, const RowScale* scales, const float* raw, const EncodedRows& y,
                 std::int64_t rows);

}  // namespace weft
