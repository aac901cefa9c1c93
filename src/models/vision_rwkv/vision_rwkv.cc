#include "models/vision_rwkv/vision_rwkv.h"

#include <algorithm>
#include <cmath>

#include "core/format.h"
#include "models/drop_path.h"
#include "ops/ops.h"

namespace weft::vision_rwkv {
namespace {

constexpr float kNormEps = 1e-5F;

// One layer's share of the network: where it stands and what it needs to know.
struct Layer {
  const Config& config;
  Grid grid;
  int index;

  // 0 at the first layer … 1 at the last.
  double depth_ratio() const { return config.depth > 1 ? static_cast<double>(index) / (config.depth - 1) : 0; }
  // 1 at the first layer … almost 0 at the last.
  double remaining_ratio() const { return 1 - static_cast<double>(index) / config.depth; }
};

Initializer linear_init() { return init::truncated_normal(0.02F); }

// An initial value by the official init_mode: one constant for "local" and "global", element by element for "fancy".
Initializer by_mode(const Config& config, float local, float global, std::function<double(std::int64_t)> fancy) {
  switch (config.init_mode) {
    case InitMode::kLocal:
      return init::constant(local);
    case InitMode::kGlobal:
      return init::constant(global);
    case InitMode::kFancy:
      break;
  }
  return init::each(std::move(fancy));
}

// (i/C)^power + shift
Initializer mix_init(const Config& config, double power, double shift = 0) {
  return by_mode(config, 1, 0.5F, [=, channels = config.embed_dims](std::int64_t i) {
    return std::pow(static_cast<double>(i) / channels, power) + shift;
  });
}

Initializer decay_init(const Layer& layer) {
  const double span = std::max(layer.config.embed_dims - 1, 1);
  return by_mode(layer.config, 1, 0, [power = 0.7 + 1.3 * layer.depth_ratio(), span](std::int64_t i) {
    return -5 + 8 * std::pow(static_cast<double>(i) / span, power);
  });
}

Initializer first_init(const Layer& layer) {
  return by_mode(layer.config, 1, 0,
                 [](std::int64_t i) { return std::log(0.3) + 0.5 * static_cast<double>((i + 1) % 3 - 1); });
}

// x and its shifted copy, from which each projection takes its own mix. Without a shift there is nothing to mix.
class TokenMix {
 public:
  TokenMix(Value x, const Layer& layer) : x_(x), shifted_(x), config_(layer.config) {
    if (config_.shift_pixel == 0) return;
    shifted_ = q_shift(x, QShift{.height = layer.grid.height,
                                 .width = layer.grid.width,
                                 .pixels = config_.shift_pixel,
                                 .gamma = config_.channel_gamma});
  }
  // x·mix + shifted·(1 − mix)
  Value operator()(const Scope& s, std::string_view name, Initializer initializer) const {
    if (config_.shift_pixel == 0) return x_;
    return lerp(x_, shifted_, s.param(name, {1, 1, config_.embed_dims}, std::move(initializer)));
  }

 private:
  Value x_, shifted_;
  const Config& config_;
};

// Attention over space, eq. (3)–(6): σ(R) ⊙ BiWKV(K, V), projected. x [B,T,C]
Value spatial_mix(const Scope& s, Value x, const Layer& layer) {
  const auto guard = s.enter();
  const Config& c = layer.config;
  const double power = layer.remaining_ratio();
  const Value decay = s.param("spatial_decay", {c.embed_dims}, decay_init(layer));
  const Value first = s.param("spatial_first", {c.embed_dims}, first_init(layer));
  const TokenMix mix(x, layer);
  const Value xk = mix(s, "spatial_mix_k", mix_init(c, power));
  const Value xv = mix(s, "spatial_mix_v", mix_init(c, power, 0.3 * layer.depth_ratio()));
  const Value xr = mix(s, "spatial_mix_r", mix_init(c, 0.5 * power));
  const Value k = linear(xk, s["key"], c.embed_dims, linear_init());
  const Value v = linear(xv, s["value"], c.embed_dims, linear_init());
  const Value r = linear(xr, s["receptance"], c.embed_dims, linear_init());

  const auto per_token = static_cast<float>(1.0 / static_cast<double>(std::max<std::int64_t>(layer.grid.tokens(), 1)));
  Value wkv = bi_wkv(k, v, scale(decay, per_token), scale(first, per_token), c.wkv);
  if (c.key_norm) wkv = layer_norm(wkv, s["key_norm"], kNormEps);
  return linear(mul(sigmoid(r), wkv), s["output"], c.embed_dims, linear_init());
}

// The feed-forward part, eq. (7)–(8): σ(R) ⊙ W_V·relu(K)². x [B,T,C]
Value channel_mix(const Scope& s, Value x, const Layer& layer) {
  const auto guard = s.enter();
  const Config& c = layer.config;
  const TokenMix mix(x, layer);
  const Value xk = mix(s, "spatial_mix_k", mix_init(c, layer.remaining_ratio()));
  const Value xr = mix(s, "spatial_mix_r", mix_init(c, layer.remaining_ratio()));
  Value hidden = squared_relu(linear(xk, s["key"], std::int64_t{c.hidden_rate} * c.embed_dims, linear_init()));
  if (c.key_norm) hidden = layer_norm(hidden, s["key_norm"], kNormEps);
  const Value r = linear(xr, s["receptance"], c.embed_dims, linear_init());
  return mul(sigmoid(r), linear(hidden, s["value"], c.embed_dims, linear_init()));
}

// x + γ·f(ln(x)), or x + γ·ln(f(x)) with post_norm: the layer's first or second branch.
template <class F>
Value residual(const Scope& s, int branch, Value x, const Config& c, F&& f) {
  const auto guard = s.enter();
  const Scope norm = s[fmt::format("ln{}", branch)];
  Value y = c.post_norm ? layer_norm(f(x), norm, kNormEps) : f(layer_norm(x, norm, kNormEps));
  if (c.init_values) {
    const Initializer initial = init::constant(static_cast<float>(*c.init_values));
    y = mul(y, s.param(fmt::format("gamma{}", branch), {c.embed_dims}, initial));
  }
  return add(x, drop_path(s, fmt::format("drop_path{}", branch), y));
}

Value block(const Scope& s, Value x, const Layer& layer) {
  const auto guard = s.enter();
  if (layer.index == 0) x = layer_norm(x, s["ln0"], kNormEps);
  x = residual(s, 1, x, layer.config, [&](Value y) { return spatial_mix(s["att"], y, layer); });
  return residual(s, 2, x, layer.config, [&](Value y) { return channel_mix(s["ffn"], y, layer); });
}

// The positional embedding on the present grid, [1,T,C].
Value positions(const Scope& s, const Config& c, Grid grid) {
  const auto guard = s.enter();
  const Grid native = grid_of(c.img_size[0], c.img_size[1], c.patch_size);
  const Value table = s.param("pos_embed", {1, native.tokens(), c.embed_dims}, init::constant(0));
  if (grid.height == native.height && grid.width == native.width) return table;
  const Value map = reshape(table, {1, native.height, native.width, c.embed_dims});
  const Value resized =
      interpolate(map, Interpolate{.mode = c.interpolate_mode, .out_h = grid.height, .out_w = grid.width});
  return reshape(resized, {1, grid.tokens(), c.embed_dims});
}

// Tokens [B,T,C] as a map [B,C,H,W].
Value as_map(Value x, Grid grid) {
  return reshape(permute(x, {0, 2, 1}), {x.shape()[0], x.shape()[2], grid.height, grid.width});
}

std::optional<Value> classify(const Scope& s, Value pooled, const Config& c) {
  const auto guard = s.enter();
  const auto torch_linear = [](Value x, const Scope& scope, int out) {  // torch's default for nn.Linear
    const Initializer uniform = init::uniform_fan_in(x.shape()[-1]);
    return linear(x, scope, out, uniform, uniform);
  };
  switch (c.head) {
    case Head::kNone:
      return std::nullopt;
    case Head::kLinear:
      return linear(pooled, s["fc"], c.num_classes, linear_init(), init::constant(0));
    case Head::kPlain:
      return torch_linear(pooled, s, c.num_classes);
    case Head::kTanhMlp:
      return torch_linear(tanh(torch_linear(pooled, s["0"], c.hidden_dims)), s["2"], c.num_classes);
  }
  return std::nullopt;
}

}  // namespace

Grid grid_of(int height, int width, int patch_size) {
  return {(height + patch_size - 1) / patch_size, (width + patch_size - 1) / patch_size};
}

ModelValues build(Graph& graph, Value image, const Config& c, std::span<const int> layers) {
  const Scope root(graph);
  const Scope s = root["backbone"];
  const Grid grid = grid_of(static_cast<int>(image.shape()[2]), static_cast<int>(image.shape()[3]), c.patch_size);

  Value x = patch_embed(image, s["patch_embed"]["projection"], c.embed_dims,
                        PatchEmbed{.patch_h = c.patch_size, .patch_w = c.patch_size});  // [B,T,C]
  x = add(x, positions(s, c, grid));
  const int head_layer = resolve_out_indices(c).back();  // the official head takes the last of these maps
  Value last = x;
  std::vector<Value> maps(layers.size(), x);
  for (int i = 0; i < c.depth; ++i) {
    x = block(s["layers"][i], x, {c, grid, i});
    if (i == c.depth - 1 && c.final_norm) x = layer_norm(x, s["ln1"], kNormEps);
    if (i == head_layer) last = x;
    for (std::size_t j = 0; j < layers.size(); ++j) {
      if (layers[j] == i) maps[j] = as_map(x, grid);
    }
  }
  const Value pooled = mean(last, 1);  // [B,C]
  return {.maps = std::move(maps), .pooled = pooled, .logits = classify(root["head"], pooled, c)};
}

}  // namespace weft::vision_rwkv
