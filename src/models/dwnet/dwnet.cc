#include "models/dwnet/dwnet.h"

#include "core/format.h"
#include "models/drop_path.h"
#include "models/dwnet/dynamic_conv.h"
#include "models/parts.h"
#include "ops/ops.h"

namespace weft::dwnet {
namespace {

// What a block is told of its stage.
struct Stage {
  const Config& config;
  int index;
  TokenGrid grid;

  std::int64_t channels() const { return config.channels(index); }
};

Value spatial_conv(Value x, const Scope& s, const Stage& stage) {
  const Config& c = stage.config;
  if (!c.dynamic) return depthwise_conv(x, s, c.window_size);
  if (!c.inhomogeneous) return dynamic_conv(x, s, c.window_size).y;
  return inhomogeneous_conv(x, s, c.window_size, c.inhomo_heads[static_cast<std::size_t>(stage.index)]).y;
}

// What mixes places, in the stead of attention. x [B,T,C]
Value mix(Value x, const Scope& s, const Stage& stage) {
  const auto guard = s.enter();
  const std::int64_t channels = stage.channels();
  const TokenGrid padded = stage.config.is_detection() ? stage.grid.padded_to(stage.config.window_size) : stage.grid;
  x = pad_grid(x, stage.grid, padded);
  x = relu(batch_norm(pointwise(x, s["conv0"], channels, false), s["bn0"]));
  x = reshape(x, {x.shape()[0], padded.height, padded.width, channels});
  x = relu(batch_norm(spatial_conv(x, s["conv"], stage), s["bn"]));
  x = reshape(x, {x.shape()[0], padded.tokens(), channels});
  x = batch_norm(pointwise(x, s["conv2"], channels, false), s["bn2"]);
  return crop_grid(x, padded, stage.grid);
}

// x [B,T,C]
Value block(Value x, const Scope& s, const Stage& stage) {
  const auto guard = s.enter();
  x = add(x, drop_path(s, "drop_path1", mix(x, s["attn2conv"], stage)));
  const Value hidden = mlp(batch_norm(x, s["bn"]), s["mlp"], stage.config.hidden(stage.index));
  return add(x, drop_path(s, "drop_path2", hidden));
}

}  // namespace

ModelValues build(Graph& graph, Value image, const Config& c, std::span<const int> layers) {
  const Scope s(graph);
  TokenGrid grid;
  Value x = embed_patches(image, s["patch_embed"], c.embed_dim, c.patch_size, c.patch_norm, grid);
  if (c.ape) {
    const TokenGrid native{c.img_size[0] / c.patch_size, c.img_size[1] / c.patch_size};
    x = add_positions(x, s, native, grid, c.is_detection());
  }
  const int last = c.stages() - 1;
  const int pooled_stage = c.is_detection() ? c.out_indices.back() : last;
  std::vector<Value> maps(layers.size(), x);
  std::optional<Value> pooled;
  for (int i = 0; i < c.stages(); ++i) {
    const Scope stage = s["layers"][i];
    for (int j = 0; j < c.depths[static_cast<std::size_t>(i)]; ++j) {
      x = block(x, stage["blocks"][j], {.config = c, .index = i, .grid = grid});
    }
    Value y = x;
    if (c.has_norm(i)) y = batch_norm(x, s[fmt::format("norm{}", i)]);
    if (i == last && !c.is_detection()) y = layer_norm(x, s["norm"]);
    if (i == pooled_stage) pooled = mean(y, 1);
    for (std::size_t j = 0; j < layers.size(); ++j) {
      if (layers[j] == i) maps[j] = feature_map(y, grid);
    }
    if (i == last) break;
    x = merge_patches(x, stage["downsample"], grid);
    grid = grid.halved();
  }
  std::optional<Value> logits;
  if (c.num_classes > 0) logits = affine(*pooled, s["head"], c.num_classes);
  return {.maps = std::move(maps), .pooled = *pooled, .logits = logits};
}

}  // namespace weft::dwnet
