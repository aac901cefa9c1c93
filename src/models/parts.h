// Parts that families share: the grid of tokens, the MLP of transformers, and what backbones of several stages have
// from Swin (Liu et al. 2021, arXiv:2103.14030). Names and initial values are those of timm and of Swin's code.
#pragma once

#include <cstdint>

#include "graph/graph.h"

namespace weft {

/// Extents of a grid of tokens.
struct TokenGrid {
  std::int64_t height = 0;
  std::int64_t width = 0;

  std::int64_t tokens() const { return height * width; }
  /// With sides that are multiples of `unit`.
  TokenGrid padded_to(std::int64_t unit) const {
    return {(height + unit - 1) / unit * unit, (width + unit - 1) / unit * unit};
  }
  /// That of the next stage: odd sides are padded.
  TokenGrid halved() const { return {(height + 1) / 2, (width + 1) / 2}; }
  bool operator==(const TokenGrid&) const = default;
};

/// Their initial values of products' weights: a truncated normal of deviation 0.02.
Initializer weight_init();

/// A linear map with these initial values, its bias zero.
Value affine(Value x, const Scope& s, std::int64_t out_features);

/// Tokens [B,T,channels] of square patches: "proj" and, if asked for, the layer norm "norm". Sides that are no
/// multiples of the patch are padded with zeros at the bottom and the right. `grid` is set to theirs.
Value embed_patches(Value image, const Scope& s, std::int64_t channels, int patch_size, bool norm, TokenGrid& grid);

/// Tokens x [B,T,C] and the absolute position embedding "absolute_pos_embed", that of the grid `native` resized to the
/// present one (bicubic). The parameter is [1,T,C], or a map [1,C,H,W], as detection code has it.
Value add_positions(Value x, const Scope& s, TokenGrid native, TokenGrid grid, bool as_map);

/// Tokens x [B,T,C] of the grid `from` as those of a larger one, with zeros at the bottom and the right; and back.
Value pad_grid(Value x, TokenGrid from, TokenGrid to);
Value crop_grid(Value x, TokenGrid from, TokenGrid to);

/// Each 2 × 2 neighbours of x [B,T,C] as one token [B,T',4C], in the order (row 0, column 0), (1,0), (0,1), (1,1); odd
/// sides are padded with zeros. The grid of the result is grid.halved().
Value join_neighbours(Value x, TokenGrid grid);

/// Patch merging: neighbours joined, the layer norm "norm", "reduction" to 2C without a bias. x [B,T,C] → [B,T',2C].
Value merge_patches(Value x, const Scope& s, TokenGrid grid);

/// "fc1", GELU, "fc2". x [B,T,C]
Value mlp(Value x, const Scope& s, std::int64_t hidden);

/// Tokens [B,T,C] as the feature map [B,C,H,W].
Value feature_map(Value x, TokenGrid grid);

}  // namespace weft
