#include <algorithm>
#include <array>

#include "core/format.h"
#include "kernel/encode.h"
#include "kernel/onednn.h"
#include "ops/patch_embed/patch_embed.h"

namespace weft {
namespace {

// Tile by tile: the patches of some tokens become rows of a matrix, which is multiplied with the weight.
class PatchEmbedKernel final : public RowKernel {
 public:
  PatchEmbedKernel(const PatchEmbed& attributes, const KernelRequest& request)
      : patch_h_(attributes.patch_h),
        patch_w_(attributes.patch_w),
        images_(request.in[0].shape[0]),
        image_c_(request.in[0].shape[1]),
        image_h_(request.in[0].shape[2]),
        image_w_(request.in[0].shape[3]),
        grid_w_(attributes.grid_width(request.in[0].shape)),
        tokens_(request.out[0].shape[1]),
        k_(image_c_ * patch_h_ * patch_w_),
        product_(request.constants[1]->reshaped({request.out[0].shape[2], k_}),
                 request.in.size() == 3 ? request.constants[2] : nullptr, request.precision, *request.packs) {
    if (request.precision != DType::kF32) encoder_ = make_encoder(request.precision, rows(), k_);
  }

  std::string_view name() const override { return "onednn:patch_embed"; }
  std::int64_t rows() const override { return images_ * tokens_; }
  bool reads_by_rows(int) const override { return false; }
  bool wants_high_tiles() const override { return true; }
  void set_tile_rows(std::int64_t rows) override {
    product_.set_rows(images_ * tokens_, rows);
    const auto bytes = [rows](std::size_t row) { return (static_cast<std::size_t>(rows) * row + 63) / 64 * 64; };
    patch_bytes_ = bytes(static_cast<std::size_t>(k_) * sizeof(float));
    encoded_bytes_ = encoder_ ? bytes(static_cast<std::size_t>(k_) * size_of(product_.precision())) : 0;
    scale_bytes_ = encoder_ ? bytes(sizeof(RowScale)) : 0;
  }
  std::size_t row_scratch_bytes() const override {
    return patch_bytes_ + encoded_bytes_ + scale_bytes_ + product_.scratch_bytes();
  }

  void run_rows(const RowArgs& args) const noexcept override {
    auto* const patches = reinterpret_cast<float*>(args.scratch);
    for (std::int64_t token = args.begin; token < args.end;) {
      const std::int64_t count = std::min(args.end - token, grid_w_ - token % grid_w_);
      gather(args.input(0), token, count, patches + (token - args.begin) * k_);
      token += count;
    }
    std::byte* const encoded = args.scratch + patch_bytes_;
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

 private:
  // The patches of `count` neighbours in one row of the grid, each as a row [Cin,ph,pw]. Walks along the image's rows:
  // patch by patch, every line of 16 pixels would come from another page.
  void gather(const float* image, std::int64_t token, std::int64_t count, float* rows) const {
    const std::int64_t top = token % tokens_ / grid_w_ * patch_h_;
    const std::int64_t left = token % grid_w_ * patch_w_;
    for (std::int64_t c = 0; c < image_c_; ++c) {
      for (std::int64_t h = 0; h < patch_h_; ++h, rows += patch_w_) {
        const float* from = image + ((token / tokens_ * image_c_ + c) * image_h_ + top + h) * image_w_;
        for (std::int64_t i = 0; i < count; ++i) {
          const std::int64_t begin = left + i * patch_w_;
          const std::int64_t width = top + h < image_h_ ? std::min(patch_w_, image_w_ - begin) : 0;
          std::fill_n(std::copy_n(from + begin, width, rows + i * k_), patch_w_ - width, 0.0F);
        }
      }
    }
  }

  std::int64_t patch_h_, patch_w_;
  std::int64_t images_, image_c_, image_h_, image_w_;
  std::int64_t grid_w_, tokens_, k_;
  onednn::Product product_;
  std::unique_ptr<RowKernel> encoder_;
  std::size_t patch_bytes_ = 0, encoded_bytes_ = 0, scale_bytes_ = 0;
};

// No images, or images without pixels.
class EmptyPatchEmbedKernel final : public Kernel {
 public:
  std::string_view name() const override { return "empty:patch_embed"; }
  void run(const KernelArgs&) const noexcept override {}
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const PatchEmbed& attributes, const KernelRequest& request) {
  const bool constant = request.constants[1] && (request.in.size() == 2 || request.constants[2]);
  require<UnsupportedError>(constant, "patch_embed", "the CPU engine wants weight and bias to be constants");
  if (request.out[0].shape.elements() == 0) return std::make_unique<EmptyPatchEmbedKernel>();
  return std::make_unique<PatchEmbedKernel>(attributes, request);
}

}  // namespace weft
