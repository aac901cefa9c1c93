#include "models/swin/swin.h"

#include <cmath>
#include <limits>

#include "core/format.h"
#include "models/drop_path.h"
#include "models/parts.h"
#include "ops/ops.h"

namespace weft::swin {
namespace {

// That of a residual branch in version 2 begins as nothing.
Value branch_norm(Value x, const Scope& s) {
  const auto zeros = [&](std::string_view name) { return s.param(name, {x.shape()[-1]}, init::constant(0)); };
  return layer_norm(x, zeros("weight"), zeros("bias"));
}

Value constant(const Scope& s, Shape shape, float value) {
  Tensor tensor(DType::kF32, std::move(shape));
  std::ranges::fill(tensor.mutable_data<float>(), value);
  return s.graph().constant(tensor);
}

// What a block is told of its stage.
struct Stage {
  const Config& config;
  int index;
  TokenGrid grid;

  std::int64_t channels() const { return config.channels(index); }
  int heads() const { return config.num_heads[static_cast<std::size_t>(index)]; }
  int window() const { return config.window(index); }
  /// The official classification code does not shift windows that are as large as the grid.
  int shift(int block) const {
    const bool shifts = block % 2 == 1 && (config.is_detection() || std::min(grid.height, grid.width) > window());
    return shifts ? window() / 2 : 0;
  }
};

// Offsets between positions of a window on a logarithmic scale, [(2w−1)²,2]: eq. 4 of version 2.
Value log_offsets(const Scope& s, const Stage& stage) {
  const int window = stage.window();
  const auto& pretrained = stage.config.pretrained_window_sizes;
  const int unit = pretrained.empty() ? 0 : pretrained[static_cast<std::size_t>(stage.index)];
  const int largest = std::max((unit > 0 ? unit : window) - 1, 1);
  const auto scaled = [&](int offset) {
    const float ratio = 8 * (static_cast<float>(offset) / static_cast<float>(largest));
    return std::copysign(std::log2(std::abs(ratio) + 1) / 3, ratio);  // 3 = log2 8
  };
  const std::int64_t side = 2LL * window - 1;
  Tensor table(DType::kF32, {side * side, 2});
  auto* to = table.mutable_data<float>().data();
  for (int y = 1 - window; y < window; ++y) {
    for (int x = 1 - window; x < window; ++x) {
      *to++ = scaled(y);
      *to++ = scaled(x);
    }
  }
  return s.graph().constant(table);
}

// The relative position bias, [heads,(2w−1)²].
Value position_bias(const Scope& s, const Stage& stage) {
  constexpr std::int64_t kHidden = 512;
  const std::int64_t side = 2LL * stage.window() - 1;
  if (stage.config.version == 1) {
    return permute(s.param("relative_position_bias_table", {side * side, stage.heads()}, weight_init()), {1, 0});
  }
  const Scope mlp = s["cpb_mlp"];
  const Value hidden = relu(affine(log_offsets(s, stage), mlp["0"], kHidden));
  const Value table = linear(hidden, mlp["2"], stage.heads(), weight_init());
  return scale(sigmoid(permute(table, {1, 0})), 16);
}

// q at the temperature of its head, which is at least 1/100: eq. 2 of version 2.
Value with_temperature(Value q, const Scope& s, const Stage& stage) {
  const Value logarithm = s.param("logit_scale", {stage.heads(), 1, 1}, init::constant(std::log(10.0F)));
  const Value factor = exp(clamp(logarithm, -std::numeric_limits<float>::infinity(), std::log(100.0F)));
  const std::int64_t depth = stage.channels() / stage.heads();
  return mul(q, reshape(mul(factor, constant(s, {stage.heads(), 1, depth}, 1)), {stage.channels()}));
}

// q, k and v side by side. In version 2 keys have no bias, and none would change a cosine but theirs.
Value project(Value x, const Scope& s, const Stage& stage) {
  const std::int64_t channels = stage.channels();
  if (!stage.config.qkv_bias) return linear(x, s["qkv"], 3 * channels, weight_init());
  if (stage.config.version == 1) return affine(x, s["qkv"], 3 * channels);
  const auto bias = [&](std::string_view name) {
    return reshape(s.param(name, {channels}, init::constant(0)), {1, channels});
  };
  const Value weight = s["qkv"].param("weight", {3 * channels, channels}, weight_init());
  const Value parts = concat(std::vector{bias("q_bias"), constant(s, {1, channels}, 0), bias("v_bias")}, 1);
  return linear(x, weight, reshape(parts, {3 * channels}));
}

// Attention within windows, section 3.2. x [B,T,C]
Value attention(const Scope& s, Value x, const Stage& stage, int block) {
  const auto guard = s.enter();
  const std::int64_t channels = stage.channels();
  const TokenGrid grid = stage.grid.padded_to(stage.window());
  const Value qkv = project(pad_grid(x, stage.grid, grid), s, stage);
  Value q = slice(qkv, 2, 0, channels);
  Value k = slice(qkv, 2, channels, 2 * channels);
  const Value v = slice(qkv, 2, 2 * channels, 3 * channels);
  const bool cosine = stage.config.version == 2;
  if (cosine) {
    q = with_temperature(l2_norm(q, stage.heads()), s, stage);
    k = l2_norm(k, stage.heads());
  }
  const Value mixed = window_attention(q, k, v, position_bias(s, stage),
                                       {.heads = stage.heads(),
                                        .scale = cosine ? 1.0F : 0.0F,
                                        .height = static_cast<int>(grid.height),
                                        .width = static_cast<int>(grid.width),
                                        .window_h = stage.window(),
                                        .window_w = stage.window(),
                                        .shift_h = stage.shift(block),
                                        .shift_w = stage.shift(block)});
  return affine(crop_grid(mixed, grid, stage.grid), s["proj"], channels);
}

// Eq. 3; in version 2 the norms stand behind.
Value block(const Scope& s, Value x, const Stage& stage, int index) {
  const auto guard = s.enter();
  const int hidden = stage.config.hidden(stage.index);
  if (stage.config.version == 2) {
    x = add(x, drop_path(s, "drop_path1", branch_norm(attention(s["attn"], x, stage, index), s["norm1"])));
    return add(x, drop_path(s, "drop_path2", branch_norm(mlp(x, s["mlp"], hidden), s["norm2"])));
  }
  x = add(x, drop_path(s, "drop_path1", attention(s["attn"], layer_norm(x, s["norm1"]), stage, index)));
  return add(x, drop_path(s, "drop_path2", mlp(layer_norm(x, s["norm2"]), s["mlp"], hidden)));
}

// Patch merging as in version 2, the norm behind: [B,T,C] → [B,T/4,2C].
Value merge_patches_v2(Value x, const Scope& s, TokenGrid grid) {
  const auto guard = s.enter();
  const std::int64_t channels = x.shape()[2];
  return layer_norm(linear(join_neighbours(x, grid), s["reduction"], 2 * channels, weight_init()), s["norm"]);
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
  std::vector<Value> maps(layers.size(), x);
  std::optional<Value> last;  // what is pooled
  for (int i = 0; i < c.stages(); ++i) {
    const Scope layer = s["layers"][i];
    const Stage stage{c, i, grid};
    const int depth = c.depths[static_cast<std::size_t>(i)];
    for (int j = 0; j < depth; ++j) x = block(layer["blocks"][j], x, stage, j);
    const bool is_last = i == c.stages() - 1;
    Value y = x;
    if (c.is_detection() && c.has_norm(i)) y = layer_norm(x, s[fmt::format("norm{}", i)]);
    if (!c.is_detection() && is_last) y = layer_norm(x, s["norm"]);
    if (c.is_detection() ? c.has_norm(i) : is_last) last = y;
    for (std::size_t j = 0; j < layers.size(); ++j) {
      if (layers[j] != i) continue;
      maps[j] = feature_map(y, grid);
    }
    if (is_last) break;
    x = c.version == 1 ? merge_patches(x, layer["downsample"], grid) : merge_patches_v2(x, layer["downsample"], grid);
    grid = grid.halved();
  }
  const Value pooled = mean(*last, 1);
  std::optional<Value> logits;
  if (!c.is_detection() && c.num_classes > 0) logits = affine(pooled, s["head"], c.num_classes);
  return {.maps = std::move(maps), .pooled = pooled, .logits = logits};
}

}  // namespace weft::swin
