#include "kernel/gathered_product.h"

#include <array>

#include "kernel/scratch.h"

namespace weft {

GatheredProduct::GatheredProduct(const Tensor& weight, const Tensor* bias, std::int64_t rows,
                                 const KernelRequest& request, const onednn::Arrangement& arrangement)
    : rows_(rows),
      k_(weight.elements() / weight.shape()[0]),
      product_(weight, bias, request.precision, *request.packs, arrangement) {
  if (request.precision != DType::kF32) encoder_ = make_encoder(request.precision, rows, k_);
}

void GatheredProduct::set_tile_rows(std::int64_t rows) {
  product_.set_rows(rows_, rows);
  const auto bytes = [rows](std::size_t row) { return whole_lines(static_cast<std::size_t>(rows) * row); };
  gathered_bytes_ = bytes(static_cast<std::size_t>(k_) * sizeof(float));
  encoded_bytes_ = encoder_ ? bytes(static_cast<std::size_t>(k_) * size_of(product_.precision())) : 0;
  scale_bytes_ = encoder_ ? bytes(sizeof(RowScale)) : 0;
}

void GatheredProduct::run(const RowArgs& args, FunctionRef<void(float*)> gather) const noexcept {
  gather(reinterpret_cast<float*>(args.scratch));
  std::byte* const encoded = args.scratch + gathered_bytes_;
  std::byte* const scales = encoded + encoded_bytes_;
  if (encoder_) {
    const std::byte* const from = args.scratch;
    const std::array<std::byte*, 2> to = {encoded, scales};
    encoder_->run_rows({.in = {&from, 1}, .out = to, .begin = args.begin, .end = args.end});
  }
  product_.run(encoder_ ? encoded : args.scratch, args.output<std::byte>(), args.count(), scales + scale_bytes_);
  if (product_.precision() != DType::kI8) return;
  decode_rows(product_.decoding(), reinterpret_cast<const RowScale*>(scales), args.output(), {.rows = args.out[0]},
              args.count());
}

}  // namespace weft
