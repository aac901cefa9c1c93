#include "models/rmt/rmt.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/format.h"
#include "models/drop_path.h"
#include "ops/ops.h"

namespace weft::rmt {
namespace {

constexpr float kNormEps = 1e-6F;

// x as a grid [B,H,W,C], or as tokens [B,T,C].
Value as_grid(Value x, TokenGrid grid) { return reshape(x, {x.shape()[0], grid.height, grid.width, x.shape()[-1]}); }
Value as_tokens(Value x) { return reshape(x, {x.shape()[0], x.shape()[1] * x.shape()[2], x.shape()[3]}); }

// Of tokens on a grid, each channel by itself, [B,T,C].
Value local(const Scope& s, Value x, TokenGrid grid, int kernel_size) {
  return as_tokens(depthwise_conv(as_grid(x, grid), s["conv"], kernel_size));
}

// |dy| + |dx| for all distances in a window, [1,(2·height − 1)·(2·width − 1)].
Tensor distances(TokenGrid window) {
  const auto [height, width] = window;
  Tensor table(DType::kF32, {1, (2 * height - 1) * (2 * width - 1)});
  auto to = table.mutable_data<float>().begin();
  for (std::int64_t dy = 1 - height; dy < height; ++dy) {
    for (std::int64_t dx = 1 - width; dx < width; ++dx) *to++ = static_cast<float>(std::abs(dy) + std::abs(dx));
  }
  return table;
}

// 10000^(−j/(D/2 − 1)) for both channels of pair j of D/2.
Initializer angle_init(std::int64_t channels) {
  const std::int64_t last = std::max<std::int64_t>(channels / 2 - 1, 1);
  return init::each([last](std::int64_t i) {
    const std::int64_t pair = i / 2;
    return std::pow(10000, -static_cast<double>(pair) / static_cast<double>(last));
  });
}

Value declare_angle(const Scope& s, std::int64_t channels, int heads) {
  require<ShapeError>(heads >= 1 && channels % (2 * std::int64_t{heads}) == 0, "rmt",
                      "heads of an even number of channels expected, got {} channels for {} heads", channels, heads);
  return s.buffer("angle", {channels / heads}, angle_init(channels / heads));
}

Initializer decay_init(const Masa::Options& o) {
  return init::each([o](std::int64_t head) {
    const double halvings = o.init_value + o.heads_range * static_cast<double>(head) / o.heads;
    // log(1 − 2^−halvings), which is exact in these forms for the small and for the large.
    return halvings < 1 ? std::log(-std::expm1(-halvings * std::numbers::ln2)) : std::log1p(-std::exp2(-halvings));
  });
}

// One stage's share of the network.
struct Stage {
  const Config& config;
  std::size_t index;
  TokenGrid grid;

  int channels() const { return config.embed_dims[index]; }
  bool last() const { return index + 1 == config.embed_dims.size(); }
};

// With a depth-wise convolution of the hidden layer. x [B,T,C]
Value feed_forward(const Scope& s, Value x, const Stage& stage) {
  const auto guard = s.enter();
  const Value hidden = gelu(affine(x, s["fc1"], stage.config.hidden(stage.index)));
  const Value mixed = add(local(s["dwconv"], hidden, stage.grid, 3), hidden);
  return affine(mixed, s["fc2"], stage.channels());
}

// A residual branch: x + γ·y, with a layer scale in some stages.
Value residual(const Scope& s, int branch, Value x, Value y, const Stage& stage) {
  if (stage.config.layerscales[stage.index]) {
    const std::int64_t channels = stage.channels();
    const Initializer initial = init::constant(static_cast<float>(stage.config.layer_init_values));
    y = mul(y, reshape(s.param(fmt::format("gamma_{}", branch), {1, 1, 1, channels}, initial), {channels}));
  }
  return add(x, drop_path(s, fmt::format("drop_path{}", branch), y));
}

// x [B,T,C]
Value block(const Scope& s, Value x, const Masa& masa, const Stage& stage) {
  const auto guard = s.enter();
  x = add(x, local(s["pos"], x, stage.grid, 3));
  x = residual(s, 1, x, masa(s["retention"], layer_norm(x, s["retention_layer_norm"], kNormEps)), stage);
  return residual(s, 2, x, feed_forward(s["ffn"], layer_norm(x, s["final_layer_norm"], kNormEps), stage), stage);
}

Value halve(const Scope& s, Value x, int channels) {
  const auto guard = s.enter();
  return batch_norm(conv2d(x, s["reduction"], {.channels = channels, .stride = 2, .padding = 1}), s["norm"]);
}

// Four convolutions with batch norms, to a quarter of the size. image [B,H,W,in_chans]
Value stem(const Scope& s, Value image, int channels) {
  const auto guard = s.enter();
  const auto convolve = [&](Value x, int place, int to, int stride) {
    x = conv2d(x, s[place], {.channels = to, .stride = stride, .padding = 1});
    return batch_norm(x, s[place + 1]);
  };
  Value x = gelu(convolve(image, 0, channels / 2, 2));
  x = gelu(convolve(x, 3, channels / 2, 1));
  x = gelu(convolve(x, 6, channels, 2));
  return convolve(x, 9, channels, 1);
}

}  // namespace

Masa::Masa(const Scope& relpos, std::int64_t channels, const Options& o)
    : options_(o), angle_(declare_angle(relpos, channels, o.heads)) {
  const auto guard = relpos.enter();
  const Value decay = reshape(relpos.buffer("decay", {o.heads}, decay_init(o)), {o.heads, 1});
  for (const TokenGrid window : windows()) biases_.push_back(mul(decay, relpos.graph().constant(distances(window))));
}

std::vector<TokenGrid> Masa::windows() const {
  const auto [height, width] = options_.grid;
  if (!options_.decomposed) return {{height, width}};
  return {{1, width}, {height, 1}};
}

Value Masa::attend(Value q, Value k, Value v) const {
  const auto extent = [](std::int64_t side) { return static_cast<int>(side); };
  for (std::size_t i = 0; i < biases_.size(); ++i) {
    const TokenGrid window = windows()[i];
    v = window_attention(q, k, v, biases_[i],
                         {.heads = options_.heads,
                          .height = extent(options_.grid.height),
                          .width = extent(options_.grid.width),
                          .window_h = extent(window.height),
                          .window_w = extent(window.width)});
  }
  return v;
}

Value Masa::operator()(const Scope& s, Value x) const {
  const auto guard = s.enter();
  const std::int64_t channels = x.shape()[2];
  const Value q = rotary(affine(x, s["q_proj"], channels), angle_);
  const Value k = rotary(affine(x, s["k_proj"], channels), angle_);
  const Value v = affine(x, s["v_proj"], channels);
  const Value enhancement = local(s["lepe"], v, options_.grid, 5);
  return affine(add(attend(q, k, v), enhancement), s["out_proj"], channels);
}

ModelValues build(Graph& graph, Value image, const Config& c, std::span<const int> layers) {
  const Scope s(graph);
  Value grid = stem(s["patch_embed"]["proj"], permute(image, {0, 2, 3, 1}),
                    c.embed_dims[0]);  // [B,H,W,C]
  std::vector<Value> maps(layers.size(), grid);
  for (std::size_t i = 0; i < c.embed_dims.size(); ++i) {
    const Scope here = s["layers"][static_cast<int>(i)];
    const Stage stage{.config = c, .index = i, .grid = {grid.shape()[1], grid.shape()[2]}};
    const Masa masa(here["Relpos"], stage.channels(),
                    {.heads = c.num_heads[i],
                     .grid = stage.grid,
                     .decomposed = c.chunkwise_recurrents[i],
                     .init_value = c.init_values[i],
                     .heads_range = c.heads_ranges[i]});
    Value x = as_tokens(grid);
    for (int j = 0; j < c.depths[i]; ++j) x = block(here["blocks"][j], x, masa, stage);
    grid = as_grid(x, stage.grid);
    for (std::size_t j = 0; j < layers.size(); ++j) {
      if (layers[j] == static_cast<int>(i)) maps[j] = feature_map(x, stage.grid);
    }
    if (!stage.last()) grid = halve(here["downsample"], grid, c.embed_dims[i + 1]);
  }
  const Value features = silu(batch_norm(affine(as_tokens(grid), s["proj"], c.projection), s["norm"]));
  const Value pooled = mean(features, 1);
  std::optional<Value> logits;
  if (c.num_classes > 0) logits = affine(pooled, s["head"], c.num_classes);
  return {.maps = std::move(maps), .pooled = pooled, .logits = logits};
}

}  // namespace weft::rmt
