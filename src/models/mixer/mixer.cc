#include "models/mixer/mixer.h"

#include <cmath>

#include "models/drop_path.h"
#include "models/token_mixing.h"
#include "ops/ops.h"

namespace weft::mixer {
namespace {

constexpr float kNormEps = 1e-6F;

// timm's: Glorot's uniform distribution for products, next to nothing for what is added.
Value product(Value x, const Scope& s, std::int64_t out) {
  const double fans = static_cast<double>(x.shape()[-1] + out);
  return linear(x, s, out, init::uniform(static_cast<float>(std::sqrt(6 / fans))), init::truncated_normal(1e-6F));
}

// Over the last axis, eq. (1).
Value mlp(const Scope& s, Value x, std::int64_t hidden) {
  const auto guard = s.enter();
  return product(gelu(product(x, s["fc1"], hidden)), s["fc2"], x.shape()[-1]);
}

// x [B,T,C]
Value block(const Scope& s, Value x, const Config& c) {
  const auto guard = s.enter();
  const Value mixed = along_tokens(layer_norm(x, s["norm1"], kNormEps),
                                   [&](Value y) { return mlp(s["mlp_tokens"], y, c.token_hidden()); });
  x = add(x, drop_path(s, "drop_path1", mixed));
  const Value y = mlp(s["mlp_channels"], layer_norm(x, s["norm2"], kNormEps), c.channel_hidden());
  return add(x, drop_path(s, "drop_path2", y));
}

}  // namespace

ModelValues build(Graph& graph, Value image, const Config& c, std::span<const int> layers) {
  require_img_size(image, c.img_size, Config::kFamily);
  const Scope s(graph);
  Value x = patch_embed(image, s["stem"]["proj"], c.embed_dim, {.patch_h = c.patch_size, .patch_w = c.patch_size});
  std::vector<Value> maps(layers.size(), x);
  for (int i = 0; i < c.depth; ++i) {
    x = block(s["blocks"][i], x, c);
    if (i == c.depth - 1) x = layer_norm(x, s["norm"], kNormEps);
    for (std::size_t j = 0; j < layers.size(); ++j) {
      if (layers[j] == i) maps[j] = feature_map(x, c.grid());
    }
  }
  const Value pooled = mean(x, 1);
  std::optional<Value> logits;
  if (c.num_classes > 0) logits = linear(pooled, s["head"], c.num_classes, init::constant(0), init::constant(0));
  return {.maps = std::move(maps), .pooled = pooled, .logits = logits};
}

}  // namespace weft::mixer
