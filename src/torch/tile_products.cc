#include "torch/tile_products.h"

#include <algorithm>
#include <array>
#include <optional>

#include "kernel/onednn_matmul.h"
#include "ops/ops.h"

namespace weft::torch_engine {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
std::int64_t rows_of_entry(const Shape& shape) { return shape.elements() / shape[0] / shape[-1]; }

// y = x·Wᵀ + b, gx = gy·W, gW = gyᵀ·x, gb = Σ gy.
class LinearOp final : public TileOp {
 public:
  explicit LinearOp(const TileRequest& request)
      : rows_(rows_of_entry(request.graph.value(request.node.outputs[0]).type.shape)),
        n_(request.graph.value(request.node.inputs[1]).type.shape[0]),
        k_(request.graph.value(request.node.inputs[1]).type.shape.elements() / n_),
        entries_(request.entries),
        bf16_(request.bf16),
        x_is_bf16_(request.bf16_values.contains(request.node.inputs[0])),
        g_is_bf16_(request.bf16_gradients.contains(request.node.outputs[0])),
        tile_(products(request.entries)) {
    if (request.rest > 0) rest_.emplace(products(request.rest));
    for (const Products* some : {&tile_, rest_ ? &*rest_ : nullptr}) {
      if (!some) continue;
      for (const onednn::Matmul* product : {&some->y, &some->gx, &some->gx_added, &some->gw}) {
        matmul_bytes_ = std::max(matmul_bytes_, product->scratch_bytes());
      }
    }
  }

  bool backward_reads(std::size_t, std::span<const bool> wanted) const override { return wanted[1]; }
  bool is_costly() const override { return true; }
  std::size_t prepared_bytes() const override { return bf16_ ? rounded_bytes(n_ * k_) : 0; }
  void prepare(std::span<const float* const> in, std::byte* prepared) const override {
    if (bf16_) round_to_bf16(in[1], reinterpret_cast<std::uint16_t*>(prepared), index(n_ * k_));
  }
  std::size_t scratch_bytes() const override {
    return matmul_bytes_ + (bf16_ ? rounded_bytes(entries_ * rows_ * k_) + rounded_bytes(entries_ * rows_ * n_) : 0);
  }

  void forward(const TileArgs& args) const noexcept override {
    const std::int64_t rows = args.entries * rows_;
    of(args).y.run(rounded(args.in[0], x_is_bf16_, rows * k_, args.scratch + matmul_bytes_), weight(args),
                   args.out[0].at, args.scratch);
    if (args.in.size() < 3) return;
    const std::array<Operand, 2> in{Operand{args.out[0].at}, Operand{args.in[2], true}};
    map(Map::kAdd, in, args.out[0], rows, index(n_));
  }

  void backward(const TileArgs& args) const noexcept override {
    const std::int64_t rows = args.entries * rows_;
    std::byte* const pad = args.scratch + matmul_bytes_;
    const Products& products = of(args);
    const void* const g = args.gin[0] || args.gin[1] ? rounded(args.g[0], g_is_bf16_, rows * n_, pad) : nullptr;
    if (args.gin[0]) {
      (args.gin[0].adds ? products.gx_added : products.gx).run(g, weight(args), args.gin[0].at, args.scratch);
    }
    if (args.gin[1]) {
      const void* const x = rounded(args.in[0], x_is_bf16_, rows * k_, pad + (bf16_ ? rounded_bytes(rows * n_) : 0));
      products.gw.run(g, x, args.gin[1].at, args.scratch);
    }
    if (args.gin.size() > 2 && args.gin[2]) add_rows(args.g[0], args.gin[2].at, rows, index(n_));
  }

 private:
  struct Products {
    onednn::Matmul y, gx, gx_added, gw;
  };

  Products products(std::int64_t entries) const {
    const std::int64_t m = entries * rows_;
    const DType precision = bf16_ ? DType::kBF16 : DType::kF32;
    const auto gx = [&](bool adds) {
      return onednn::Matmul({.m = m, .n = k_, .k = n_, .precision = precision, .adds = adds});
    };
    return {
        .y = onednn::Matmul({.m = m, .n = n_, .k = k_, .precision = precision, .b_transposed = true}),
        .gx = gx(false),
        .gx_added = gx(true),
        .gw = onednn::Matmul({.m = n_, .n = k_, .k = m, .precision = precision, .a_transposed = true, .adds = true})};
  }
  static std::size_t rounded_bytes(std::int64_t elements) { return (index(elements) * 2 + 63) / 64 * 64; }
  const Products& of(const TileArgs& args) const { return args.entries == entries_ ? tile_ : *rest_; }
  const void* weight(const TileArgs& args) const {
    return bf16_ ? static_cast<const void*>(args.prepared) : static_cast<const void*>(args.in[1]);
  }
  // In what is multiplied.
  const void* rounded(const float* x, bool is_bf16, std::int64_t elements, std::byte* to) const {
    if (!bf16_ || is_bf16) return x;
    round_to_bf16(x, reinterpret_cast<std::uint16_t*>(to), index(elements));
    return to;
  }

  std::int64_t rows_;  // of an entry
  std::int64_t n_, k_;
  std::int64_t entries_;
  bool bf16_;
  bool x_is_bf16_, g_is_bf16_;  // as they come
  Products tile_;
  std::optional<Products> rest_;
  std::size_t matmul_bytes_ = 0;
};

// A product of patches.
class PatchOp final : public TileOp {
 public:
  explicit PatchOp(const TileRequest& request)
      : product_(request),
        patch_(*request.node.nodes[0]->operation.as<PatchEmbed>()),
        image_(request.graph.value(request.node.inputs[0]).type.shape),
        grid_h_(patch_.grid_height(image_)),
        grid_w_(patch_.grid_width(image_)),
        patch_bytes_((index(request.entries * grid_h_ * grid_w_ * patch_elements()) * sizeof(float) + 63) / 64 * 64) {}

  bool backward_reads(std::size_t, std::span<const bool> wanted) const override { return wanted[1]; }
  bool is_costly() const override { return true; }
  std::size_t prepared_bytes() const override { return product_.prepared_bytes(); }
  void prepare(std::span<const float* const> in, std::byte* prepared) const override { product_.prepare(in, prepared); }
  std::size_t scratch_bytes() const override { return 2 * patch_bytes_ + product_.scratch_bytes(); }

  void forward(const TileArgs& args) const noexcept override {
    std::array<const float*, 3> in;
    product_.forward(of_patches(args, in));
  }
  void backward(const TileArgs& args) const noexcept override {
    std::array<const float*, 3> in;
    TileArgs of = of_patches(args, in);
    std::array<Target, 3> gin;
    std::ranges::copy(args.gin, gin.begin());
    of.gin = {gin.data(), args.gin.size()};
    auto* const gradient = reinterpret_cast<float*>(args.scratch + patch_bytes_);
    if (gin[0]) gin[0] = {gradient};
    product_.backward(of);
    if (!args.gin[0]) return;
    const Target& to = args.gin[0];
    if (!to.adds) std::fill_n(to.at, args.entries * image_.elements() / image_[0], 0.0F);
    for_each_run(args.entries, [&](std::int64_t pixel, std::int64_t at, std::int64_t count) {
      for (std::int64_t i = 0; pixel >= 0 && i < count; ++i) to.at[pixel + i] += gradient[at + i];
    });
  }

 private:
  std::int64_t patch_elements() const { return image_[1] * patch_.patch_h * patch_.patch_w; }

  // The product's arguments, with the patches, when there is an image, in the place of the image.
  TileArgs of_patches(const TileArgs& args, std::array<const float*, 3>& in) const {
    auto* const patches = reinterpret_cast<float*>(args.scratch);
    std::ranges::copy(args.in, in.begin());
    TileArgs of = args;
    of.in = {in.data(), args.in.size()};
    of.scratch = args.scratch + 2 * patch_bytes_;
    if (!in[0]) return of;
    in[0] = patches;
    for_each_run(args.entries, [&](std::int64_t pixel, std::int64_t at, std::int64_t count) {
      if (pixel >= 0) {
        std::copy_n(args.in[0] + pixel, count, patches + at);
      } else {
        std::fill_n(patches + at, count, 0.0F);
      }
    });
    return of;
  }

  // Calls f(pixel, at, count) for `count` neighbouring elements of a patch from `at` on: pixels from `pixel` on, or,
  // with −1, zeros beyond the image. Patches are [C,patch_h,patch_w].
  template <class F>
  void for_each_run(std::int64_t entries, F&& f) const {
    const std::int64_t channels = image_[1], height = image_[2], width = image_[3];
    std::int64_t at = 0;
    for (std::int64_t token = 0; token < entries * grid_h_ * grid_w_; ++token) {
      const std::int64_t entry = token / (grid_h_ * grid_w_);
      const std::int64_t top = token / grid_w_ % grid_h_ * patch_.patch_h;
      const std::int64_t left = token % grid_w_ * patch_.patch_w;
      const std::int64_t inside = std::min<std::int64_t>(patch_.patch_w, width - left);
      for (std::int64_t plane = entry * channels; plane < (entry + 1) * channels; ++plane) {
        for (std::int64_t y = top; y < top + patch_.patch_h; ++y, at += patch_.patch_w) {
          if (y >= height) {
            f(-1, at, patch_.patch_w);
            continue;
          }
          f((plane * height + y) * width + left, at, inside);
          if (inside < patch_.patch_w) f(-1, at + inside, patch_.patch_w - inside);
        }
      }
    }
  }

  LinearOp product_;
  PatchEmbed patch_;
  Shape image_;
  std::int64_t grid_h_, grid_w_;
  std::size_t patch_bytes_;
};

}  // namespace

std::unique_ptr<TileOp> make_linear_op(const TileRequest& request) { return std::make_unique<LinearOp>(request); }
std::unique_ptr<TileOp> make_patch_op(const TileRequest& request) { return std::make_unique<PatchOp>(request); }

}  // namespace weft::torch_engine
