#include "models/parts.h"

#include "ops/elementwise/elementwise.h"
#include "ops/interpolate/interpolate.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/layout/layout.h"
#include "ops/linear/linear.h"
#include "ops/patch_embed/patch_embed.h"

namespace weft {

Initializer weight_init() { return init::truncated_normal(0.02F); }

Value affine(Value x, const Scope& s, std::int64_t out_features) {
  return linear(x, s, out_features, weight_init(), init::constant(0));
}

Value embed_patches(Value image, const Scope& s, std::int64_t channels, int patch_size, bool norm, TokenGrid& grid) {
  const auto guard = s.enter();
  const PatchEmbed patch{.patch_h = patch_size, .patch_w = patch_size};
  const Value tokens = patch_embed(image, s["proj"], channels, patch);
  grid = {patch.grid_height(image.shape()), patch.grid_width(image.shape())};
  return norm ? layer_norm(tokens, s["norm"]) : tokens;
}

Value add_positions(Value x, const Scope& s, TokenGrid native, TokenGrid grid, bool as_map) {
  const std::int64_t channels = x.shape()[2];
  const Shape shape = as_map ? Shape{1, channels, native.height, native.width} : Shape{1, native.tokens(), channels};
  Value table = s.param("absolute_pos_embed", shape, weight_init());
  if (as_map) table = permute(table, {0, 2, 3, 1});
  table = reshape(table, {1, native.height, native.width, channels});
  if (grid != native) {
    table = interpolate(table, {.mode = InterpolateMode::kBicubic,
                                .out_h = static_cast<int>(grid.height),
                                .out_w = static_cast<int>(grid.width)});
  }
  return add(x, reshape(table, {1, grid.tokens(), channels}));
}

Value pad_grid(Value x, TokenGrid from, TokenGrid to) {
  if (from == to) return x;
  const std::int64_t batch = x.shape()[0];
  const std::int64_t channels = x.shape()[2];
  x = reshape(x, {batch, from.height, from.width, channels});
  x = pad(pad(x, 2, to.width - from.width), 1, to.height - from.height);
  return reshape(x, {batch, to.tokens(), channels});
}

Value crop_grid(Value x, TokenGrid from, TokenGrid to) {
  if (from == to) return x;
  const std::int64_t batch = x.shape()[0];
  const std::int64_t channels = x.shape()[2];
  x = reshape(x, {batch, from.height, from.width, channels});
  if (to.height < from.height) x = slice(x, 1, 0, to.height);
  if (to.width < from.width) x = slice(x, 2, 0, to.width);
  return reshape(x, {batch, to.tokens(), channels});
}

Value join_neighbours(Value x, TokenGrid grid) {
  const std::int64_t batch = x.shape()[0];
  const std::int64_t channels = x.shape()[2];
  const auto [height, width] = grid.halved();
  x = pad_grid(x, grid, grid.padded_to(2));
  // Columns outside of rows: that is the official order.
  x = permute(reshape(x, {batch, height, 2, width, 2, channels}), {0, 1, 3, 4, 2, 5});
  return reshape(x, {batch, height * width, 4 * channels});
}

Value merge_patches(Value x, const Scope& s, TokenGrid grid) {
  const auto guard = s.enter();
  const std::int64_t channels = x.shape()[2];
  return linear(layer_norm(join_neighbours(x, grid), s["norm"]), s["reduction"], 2 * channels, weight_init());
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
