// A product whose input rows are gathered, tile by tile, from where they lie scattered: the patches of a convolution.
#pragma once

#include <memory>

#include "core/threads.h"
#include "kernel/encode.h"
#include "kernel/kernel.h"
#include "kernel/onednn.h"

namespace weft {

/// y = x·Wᵀ + b, f32 [rows,N], x being what gather() writes: rows [count,K] in f32, which are encoded where the
/// product multiplies fewer bits.
class GatheredProduct {
 public:
  /// As onednn::Product, of `rows` in all.
  GatheredProduct(const Tensor& weight, const Tensor* bias, std::int64_t rows, const KernelRequest& request,
                  const onednn::Arrangement& arrangement = {});

  /// See RowKernel.
  void set_tile_rows(std::int64_t rows);
  std::size_t scratch_bytes() const {
    return gathered_bytes_ + encoded_bytes_ + scale_bytes_ + product_.scratch_bytes();
  }
  /// A tile; `gather` fills the rows from args.begin to args.end.
  void run(const RowArgs& args, FunctionRef<void(float* rows)> gather) const noexcept;

 private:
  std::int64_t rows_, k_;
  onednn::Product product_;
  std::unique_ptr<RowKernel> encoder_;
  std::size_t gathered_bytes_ = 0, encoded_bytes_ = 0, scale_bytes_ = 0;
};

}  // namespace weft
