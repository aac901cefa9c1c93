#include "models/hierarchy.h"

#include "ops/elementwise/elementwise.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/layout/layout.h"
#include "ops/linear/linear.h"
#include "ops/patch_embed/patch_embed.h"

namespace weft {

Initializer hierarchy_weight_init() { return init::truncated_normal(0.02F); }

Value affine(Value x, const Scope& s, std::int64_t out_features) {
  return linear(x, s, out_features, hierarchy_weight_init(), init::constant(0));
}

Value embed_patches(Value image, const Scope& s, std::int64_t channels, int patch_size, bool norm, TokenGrid& grid) {
  const auto guard = s.enter();
  const PatchEmbed patch{.patch_h = patch_size, .patch_w = patch_size};
  const Value tokens = patch_embed(image, s["proj"], channels, patch);
  grid = {patch.grid_height(image.shape()), patch.grid_width(image.shape())};
  return norm ? layer_norm(tokens, s["norm"]) : tokens;
}

Value join_neighbours(Value x, TokenGrid grid) {
  const std::int64_t batch = x.shape()[0];
  const std::int64_t channels = x.shape()[2];
  const auto [height, width] = grid.halved();
  x = reshape(x, {batch, grid.height, grid.width, channels});
  x = pad(pad(x, 2, 2 * width - grid.width), 1, 2 * height - grid.height);
  // Columns outside of rows: that is the official order.
  x = permute(reshape(x, {batch, height, 2, width, 2, channels}), {0, 1, 3, 4, 2, 5});
  return reshape(x, {batch, height * width, 4 * channels});
}

Value merge_patches(Value x, const Scope& s, TokenGrid grid) {
  const auto guard = s.enter();
  const std::int64_t channels = x.shape()[2];
  return linear(layer_norm(join_neighbours(x, grid), s["norm"]), s["reduction"], 2 * channels, hierarchy_weight_init());
}

Value mlp(Value x, const Scope& s, std::int64_t hidden) {
  const auto guard = s.enter();
  const std::int64_t channels = x.shape()[-1];
  return affine(gelu(affine(x, s["fc1"], hidden)), s["fc2"], channels);
}

Value feature_map(Value x, TokenGrid grid) {
  return reshape(permute(x, {0, 2, 1}), {x.shape()[0], x.shape()[2], grid.height, grid.width});
}

}  // namespace weft
