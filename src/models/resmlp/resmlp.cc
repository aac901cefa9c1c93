#include "models/resmlp/resmlp.h"

#include "models/drop_path.h"
#include "models/token_mixing.h"
#include "ops/ops.h"

namespace weft::resmlp {
namespace {

// What stands in the place of a norm, eq. (1): alpha·x + beta.
Value affine_norm(Value x, const Scope& s) {
  const std::int64_t channels = x.shape()[-1];
  const Value scaled = mul(x, s.param("alpha", {channels}, init::constant(1)));
  return add(scaled, s.param("beta", {channels}, init::constant(0)));
}

// A residual branch: x + γ·y.
Value residual(const Scope& s, int branch, Value x, Value y, const Config& c) {
  const Initializer initial = init::constant(static_cast<float>(c.init_scale));
  const Value scaled = mul(y, s.param(fmt::format("gamma_{}", branch), {c.embed_dim}, initial));
  return add(x, drop_path(s, fmt::format("drop_path{}", branch), scaled));
}

// Eq. (2)–(3). x [B,T,C]
Value block(const Scope& s, Value x, const Config& c) {
  const auto guard = s.enter();
  const Value mixed =
      along_tokens(affine_norm(x, s["norm1"]), [&](Value y) { return affine(y, s["attn"], y.shape()[-1]); });
  x = residual(s, 1, x, mixed, c);
  return residual(s, 2, x, mlp(affine_norm(x, s["norm2"]), s["mlp"], 4LL * c.embed_dim), c);
}

}  // namespace

ModelValues build(Graph& graph, Value image, const Config& c, std::span<const int> layers) {
  require_img_size(image, c.img_size, Config::kFamily);
  const Scope s(graph);
  Value x =
      patch_embed(image, s["patch_embed"]["proj"], c.embed_dim, {.patch_h = c.patch_size, .patch_w = c.patch_size});
  std::vector<Value> maps(layers.size(), x);
  for (int i = 0; i < c.depth; ++i) {
    x = block(s["blocks"][i], x, c);
    if (i == c.depth - 1) x = affine_norm(x, s["norm"]);
    for (std::size_t j = 0; j < layers.size(); ++j) {
      if (layers[j] == i) maps[j] = feature_map(x, c.grid());
    }
  }
  const Value pooled = mean(x, 1);
  std::optional<Value> logits;
  if (c.num_classes > 0) logits = affine(pooled, s["head"], c.num_classes);
  return {.maps = std::move(maps), .pooled = pooled, .logits = logits};
}

}  // namespace weft::resmlp
