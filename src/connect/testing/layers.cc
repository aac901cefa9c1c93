#include "connect/testing/layers.h"

#include <cmath>
#include <functional>
#include <map>

#include "ops/ops.h"
#include "ops/testing/random.h"

namespace weft::testing {
namespace {

constexpr std::int64_t kHeight = 6, kWidth = 8, kTokens = kHeight * kWidth, kChannels = 12;

// Makes parameters, all of them with values.
class Maker {
 public:
  Maker(SmallLayer& layer, std::uint64_t seed) : layer_(layer), seed_(seed) {}

  Value operator()(Shape shape, float scale = 1, float shift = 0) {
    const std::string name = std::to_string(layer_.weights.size());
    layer_.weights.emplace(name, random_tensor(shape, ++seed_, scale, shift));
    return layer_.graph->parameter(name, {DType::kF32, shape}, init::constant(0));
  }

  // A parameter with these values.
  Value of(const Tensor& values) {
    const std::string name = std::to_string(layer_.weights.size());
    layer_.weights.emplace(name, values);
    return layer_.graph->parameter(name, values.type(), init::constant(0));
  }

  // A product that keeps the size of what is random.
  Value project(Value x, std::int64_t out, float size = 1) {
    const std::int64_t in = x.shape()[-1];
    return linear(x, (*this)({out, in}, size / std::sqrt(static_cast<float>(in))));
  }

 private:
  SmallLayer& layer_;
  std::uint64_t seed_;
};

Value tokens(Value x) { return reshape(x, {1, kTokens, x.shape()[-1]}); }
Value transposed(Value x) { return permute(x, {0, 2, 1}); }

struct Projections {
  Value q, k, v;
};
Projections projections(Value x, Maker& make) {
  const Value t = tokens(x);
  const Value q = make.project(t, kChannels);
  const Value k = make.project(t, kChannels);
  return {q, k, make.project(t, kChannels)};
}

constexpr int kHeads = 3;
constexpr WindowAttention window(int height, int width) {
  return {.heads = kHeads, .height = kHeight, .width = kWidth, .window_h = height, .window_w = width};
}

// RMT's decay with the Manhattan distance, as a bias of windows: [heads,(2h − 1)·(2w − 1)].
Tensor manhattan_decay(int height, int width) {
  Tensor bias(DType::kF32, {kHeads, (2 * height - 1) * (2 * width - 1)});
  auto value = bias.mutable_data<float>().begin();
  for (int head = 0; head < kHeads; ++head) {
    const auto decay = static_cast<float>(std::log(1 - std::exp2(-2 - 4.0 * head / kHeads)));
    for (int y = 1 - height; y < height; ++y) {
      for (int x = 1 - width; x < width; ++x) *value++ = decay * static_cast<float>(std::abs(y) + std::abs(x));
    }
  }
  return bias;
}

Value window_layer(Value x, Maker& make, const WindowAttention& attributes) {
  const auto [q, k, v] = projections(x, make);
  const Value bias = make({kHeads, attributes.bias_entries()});
  return window_attention(q, k, v, bias, attributes);
}

// x [1,6,8,12]. Scores of attention get a deviation of 1 or so, that no weight is near another or vanishes.
const std::map<std::string, std::function<Value(Value, Maker&)>> kLayers = {
    {"bi_wkv",
     [](Value x, Maker& make) {
       const Value k = make.project(tokens(x), kChannels);
       const Value v = make.project(tokens(x), kChannels);
       const Value w = make({kChannels}, 0.1F, 0.1F);
       return bi_wkv(k, v, w, make({kChannels}));
     }},
    {"causal_wkv",
     [](Value x, Maker& make) {
       const Value k = make.project(tokens(x), kChannels);
       const Value v = make.project(tokens(x), kChannels);
       const Value w = make({kChannels}, 0.1F, 0.2F);
       const Value state = make.of(Tensor::zeros({DType::kF32, {1, 3, kChannels}}));
       return causal_wkv(k, v, w, make({kChannels}), state).y;
     }},
    {"token_shift",
     [](Value x, Maker& make) {
       return token_shift(tokens(x), make.of(Tensor::zeros({DType::kF32, {1, kChannels}})));
     }},
    {"AFT",
     [](Value x, Maker& make) {
       const Value k = make.project(tokens(x), kChannels);
       const Value v = make.project(tokens(x), kChannels);
       return aft(k, v, make({kTokens, kTokens}), {});
     }},
    {"causal AFT",
     [](Value x, Maker& make) {
       const Value k = make.project(tokens(x), kHeads);  // a key for all channels of a head
       const Value v = make.project(tokens(x), kChannels);
       return aft(k, v, make({kHeads, 1, 5}), {.causal = true});
     }},
    {"q_shift",
     [](Value x, Maker&) { return q_shift(tokens(x), QShift{.height = kHeight, .width = kWidth, .pixels = 1}); }},
    {"attention",
     [](Value x, Maker& make) {
       const auto [q, k, v] = projections(x, make);
       return attention(q, k, v, Attention{.heads = kHeads});
     }},
    {"local attention", [](Value x, Maker& make) { return window_layer(x, make, window(3, 4)); }},
    {"shifted local attention",
     [](Value x, Maker& make) {
       WindowAttention attributes = window(3, 4);
       attributes.shift_h = 1;
       attributes.shift_w = 2;
       return window_layer(x, make, attributes);
     }},
    {"sliding local attention",
     [](Value x, Maker& make) {
       const auto [q, k, v] = projections(x, make);
       const Value bias = make({kHeads, 9});
       return sliding_attention(q, k, v, bias, {.heads = kHeads, .kernel_size = 3, .height = kHeight, .width = kWidth});
     }},
    {"MaSA",
     [](Value x, Maker& make) {
       const auto [q, k, v] = projections(x, make);
       return window_attention(q, k, v, make.of(manhattan_decay(kHeight, kWidth)), window(kHeight, kWidth));
     }},
    {"decomposed MaSA",
     [](Value x, Maker& make) {
       const auto [q, k, v] = projections(x, make);
       const Value along_rows = window_attention(q, k, v, make.of(manhattan_decay(1, kWidth)), window(1, kWidth));
       return window_attention(q, k, along_rows, make.of(manhattan_decay(kHeight, 1)), window(kHeight, 1));
     }},
    {"convolution",
     [](Value x, Maker& make) {
       const Value weight = make({kChannels, kChannels, 3, 3});
       return conv2d(x, weight, make({kChannels}), {.stride = 1, .padding = 1});
     }},
    {"depth-wise convolution",
     [](Value x, Maker& make) {
       const Value weight = make({kChannels, 1, 3, 3});
       return depthwise_conv(x, weight, make({kChannels}), {.padding = 1});
     }},
    {"dynamic depth-wise convolution",
     [](Value x, Maker& make) {
       const Value kernels = make.project(gelu(make.project(mean(tokens(x), 1), 4, 4)), kChannels * 9);
       return depthwise_conv(x, reshape(kernels, {1, kChannels, 3, 3}), make({kChannels}), {.padding = 1});
     }},
    {"inhomogeneous dynamic depth-wise convolution",
     [](Value x, Maker& make) { return involution(x, make.project(x, kHeads * 9), {.kernel_size = 3}); }},
    {"separable MLP",  // its part for positions; the one for channels mixes none
     [](Value x, Maker& make) {
       const Value weight = make({kTokens, kTokens});
       const Value mixed = linear(transposed(tokens(x)), weight, make({kTokens}));
       return make.project(transposed(mixed), kChannels);
     }},
    {"MLP",
     [](Value x, Maker& make) {
       const Value weight = make({kTokens * kChannels, kTokens * kChannels});
       const Value y = linear(reshape(x, {1, kTokens * kChannels}), weight, make({kTokens * kChannels}));
       return reshape(y, {1, kTokens, kChannels});
     }},
    {"low-rank MLP",
     [](Value x, Maker& make) {
       const Value inner = linear(reshape(x, {1, kTokens * kChannels}), make({5, kTokens * kChannels}));
       return reshape(linear(inner, make({kTokens * kChannels, 5})), {1, kTokens, kChannels});
     }},
};

}  // namespace

SmallLayer small_layer(const std::string& name, std::uint64_t seed) {
  SmallLayer layer{.name = name, .graph = std::make_unique<Graph>(name), .weights = {}};
  Maker make(layer, seed);
  const Value x = layer.graph->input("x", {DType::kF32, {1, kHeight, kWidth, kChannels}});
  layer.graph->output("y", kLayers.at(name)(x, make));
  return layer;
}

std::vector<std::string> small_layer_names() {
  std::vector<std::string> names;
  for (const auto& [name, build] : kLayers) names.push_back(name);
  return names;
}

}  // namespace weft::testing
