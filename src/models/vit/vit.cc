#include "models/vit/vit.h"

#include "core/format.h"
#include "models/drop_path.h"
#include "models/parts.h"
#include "ops/ops.h"

namespace weft::vit {
namespace {

Value norm(Value x, const Scope& s, const Config& c) { return layer_norm(x, s, static_cast<float>(c.norm_eps)); }

// Multi-head self-attention, eq. (5)–(8) of the paper. x [B,T,C]
Value self_attention(const Scope& s, Value x, const Config& c) {
  const auto guard = s.enter();
  const Value qkv =
      c.qkv_bias ? affine(x, s["qkv"], 3LL * c.embed_dim) : linear(x, s["qkv"], 3LL * c.embed_dim, weight_init());
  const auto third = [&](std::int64_t i) { return slice(qkv, 2, i * c.embed_dim, (i + 1) * c.embed_dim); };
  return affine(attention(third(0), third(1), third(2), Attention{.heads = c.num_heads}), s["proj"], c.embed_dim);
}

// Eq. (2)–(3). x [B,T,C]
Value block(const Scope& s, Value x, const Config& c) {
  const auto guard = s.enter();
  x = add(x, drop_path(s, "drop_path1", self_attention(s["attn"], norm(x, s["norm1"], c), c)));
  return add(x, drop_path(s, "drop_path2", mlp(norm(x, s["norm2"], c), s["mlp"], c.hidden())));
}

// The positional embedding, [1,prefix + T,C], its grid resized to the present one.
Value positions(const Scope& s, const Config& c, TokenGrid grid) {
  const TokenGrid native{c.img_size[0] / c.patch_size, c.img_size[1] / c.patch_size};
  const std::int64_t prefix = c.prefix_tokens();
  const std::int64_t rows = prefix + native.height * native.width;
  const Value table = s.param("pos_embed", {1, rows, c.embed_dim}, weight_init());
  if (grid == native) return table;
  const Value map = reshape(slice(table, 1, prefix, rows), {1, native.height, native.width, c.embed_dim});
  const Value resized = interpolate(
      map, {.mode = c.interpolate_mode, .out_h = static_cast<int>(grid.height), .out_w = static_cast<int>(grid.width)});
  const Value patches = reshape(resized, {1, grid.height * grid.width, c.embed_dim});
  return prefix == 0 ? patches : concat(std::vector{slice(table, 1, 0, prefix), patches}, 1);
}

// Tokens of class, distillation and patches with their positions, eq. (1): [B,prefix + T,C].
Value embed(const Scope& s, Value image, const Config& c, TokenGrid& grid) {
  const PatchEmbed patch{.patch_h = c.patch_size, .patch_w = c.patch_size};
  grid = {patch.grid_height(image.shape()), patch.grid_width(image.shape())};
  const Value patches = patch_embed(image, s["patch_embed"]["proj"], c.embed_dim, patch);
  std::vector<Value> parts;
  if (c.class_token) parts.push_back(s.param("cls_token", {1, 1, c.embed_dim}, weight_init()));
  if (c.distilled) parts.push_back(s.param("dist_token", {1, 1, c.embed_dim}, weight_init()));
  parts.push_back(patches);
  return add(parts.size() == 1 ? patches : concat(parts, 1), positions(s, c, grid));
}

// Token `index` of x [B,T,C]: [B,C].
Value token(Value x, std::int64_t index) {
  return reshape(slice(x, 1, index, index + 1), {x.shape()[0], x.shape()[2]});
}

}  // namespace

ModelValues build(Graph& graph, Value image, const Config& c, std::span<const int> layers) {
  const Scope s(graph);
  TokenGrid grid{};
  Value x = embed(s, image, c, grid);
  const std::int64_t prefix = c.prefix_tokens();
  const auto patches = [&] { return prefix == 0 ? x : slice(x, 1, prefix, x.shape()[1]); };  // [B,T,C]
  std::vector<Value> maps(layers.size(), x);
  for (int i = 0; i < c.depth; ++i) {
    x = block(s["blocks"][i], x, c);
    if (i == c.depth - 1 && c.global_pool == GlobalPool::kToken) x = norm(x, s["norm"], c);
    for (std::size_t j = 0; j < layers.size(); ++j) {
      if (layers[j] != i) continue;
      maps[j] = feature_map(patches(), grid);
    }
  }
  const Value pooled = c.global_pool == GlobalPool::kToken ? token(x, 0) : norm(mean(patches(), 1), s["fc_norm"], c);
  std::optional<Value> logits;
  if (c.num_classes > 0) logits = affine(pooled, s["head"], c.num_classes);
  if (c.num_classes > 0 && c.distilled) {
    logits = scale(add(*logits, affine(token(x, 1), s["head_dist"], c.num_classes)), 0.5F);
  }
  return {.maps = std::move(maps), .pooled = pooled, .logits = logits};
}

}  // namespace weft::vit
