// The patch embedding of vision transformers: a convolution whose stride is its kernel, so an affine map of each patch.
//
//   image   [B,Cin,H,W]
//   weight  [C,Cin,ph,pw]   a constant, as in PyTorch's nn.Conv2d
//   bias    [C]             a constant; optional
//   tokens  [B,T,C]         T = ⌈H/ph⌉ · ⌈W/pw⌉, row by row
//
// Where the patches do not divide the image it is padded with zeros at the bottom and the right (mmcv's AdaptivePadding
// "corner"). Multiply-accumulates count the padding.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct PatchEmbed {
  int patch_h = 16;  // in pixels
  int patch_w = 16;

  static constexpr std::string_view kName = "patch_embed";
  static constexpr std::tuple kFields{Field{"patch_h", &PatchEmbed::patch_h}, Field{"patch_w", &PatchEmbed::patch_w}};
  bool operator==(const PatchEmbed&) const = default;

  /// Rows and columns of the grid of tokens for an image of [...,H,W].
  std::int64_t grid_height(const Shape& image) const { return (image[-2] + patch_h - 1) / patch_h; }
  std::int64_t grid_width(const Shape& image) const { return (image[-1] + patch_w - 1) / patch_w; }
};

std::vector<TensorType> infer(const PatchEmbed& attributes, std::span<const TensorType> in);
void reference(const PatchEmbed& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const PatchEmbed& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const PatchEmbed& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit, ConfigError for a patch without pixels.
Value patch_embed(Value image, Value weight, std::optional<Value> bias, const PatchEmbed& patch);
/// With the parameters "weight" and "bias" declared in `scope` (the official one is "projection"), initialised as
/// PyTorch's Conv2d, and `channels` channels to a token.
Value patch_embed(Value image, const Scope& scope, std::int64_t channels, const PatchEmbed& patch);

}  // namespace weft
