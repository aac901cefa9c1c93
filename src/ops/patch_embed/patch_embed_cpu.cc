#include <algorithm>

#include "core/format.h"
#include "kernel/empty_kernel.h"
#include "kernel/gathered_product.h"
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
                 request.in.size() == 3 ? request.constants[2] : nullptr, images_ * tokens_, request) {}

  std::string_view name() const override { return "onednn:patch_embed"; }
  std::int64_t rows() const override { return images_ * tokens_; }
  bool reads_by_rows(int) const override { return false; }
  bool wants_high_tiles() const override { return true; }
  void set_tile_rows(std::int64_t rows) override { product_.set_tile_rows(rows); }
  std::size_t row_scratch_bytes() const override { return product_.scratch_bytes(); }

  void run_rows(const RowArgs& args) const noexcept override {
    product_.run(args, [&](float* patches) {
      for (std::int64_t token = args.begin; token < args.end;) {
        const std::int64_t count = std::min(args.end - token, grid_w_ - token % grid_w_);
        gather(args.input(0), token, count, patches + (token - args.begin) * k_);
        token += count;
      }
    });
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
  GatheredProduct product_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const PatchEmbed& attributes, const KernelRequest& request) {
  const bool constant = request.constants[1] && (request.in.size() == 2 || request.constants[2]);
  require<UnsupportedError>(constant, "patch_embed", "the CPU engine wants weight and bias to be constants");
  if (request.out[0].shape.elements() == 0) return std::make_unique<EmptyKernel>("empty:patch_embed");
  return std::make_unique<PatchEmbedKernel>(attributes, request);
}

}  // namespace weft
