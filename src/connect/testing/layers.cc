#include "connect/testing/layers.h"

#include <cmath>
#include <functional>
#include <map>

#include "ops/ops.h"
#include "ops/testing/random.h"

namespace weft::testing {
namespace {

constexpr std::int64_t kHeight = 5, kWidth = 7, kTokens = kHeight * kWidth, kChannels = 12;

// Makes parameters, all of them with values.
class Maker {
 public:
  Maker(SmallLayer& layer, std::uint64_t seed) : layer_(layer), seed_(seed) {}

  Value operator()(Shape shape, float scale = 1, float shift = 0) {
    const std::string name = std::to_string(layer_.weights.size());
    layer_.weights.emplace(name, random_tensor(shape, ++seed_, scale, shift));
    return layer_.graph->parameter(name, {DType::kF32, shape}, init::constant(0));
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

// x [1,5,7,12]. Scores of attention get a deviation of 1 or so, that no weight is near another or vanishes.
const std::map<std::string, std::function<Value(Value, Maker&)>> kLayers = {
    {"bi_wkv",
     [](Value x, Maker& make) {
       const Value t = tokens(x);
       return bi_wkv(make.project(t, kChannels), make.project(t, kChannels), make({kChannels}, 0.1F, 0.1F),
                     make({kChannels}));
     }},
    {"q_shift",
     [](Value x, Maker&) { return q_shift(tokens(x), QShift{.height = kHeight, .width = kWidth, .pixels = 1}); }},
    {"attention",
     [](Value x, Maker& make) {
       const Value t = tokens(x);
       return attention(make.project(t, kChannels), make.project(t, kChannels), make.project(t, kChannels),
                        Attention{.heads = 3});
     }},
    {"separable MLP",  // its part for positions; the one for channels mixes none
     [](Value x, Maker& make) {
       const Value mixed = linear(transposed(tokens(x)), make({kTokens, kTokens}), make({kTokens}));
       return make.project(transposed(mixed), kChannels);
     }},
    {"MLP",
     [](Value x, Maker& make) {
       const Value flat = reshape(x, {1, kTokens * kChannels});
       const Value y = linear(flat, make({kTokens * kChannels, kTokens * kChannels}), make({kTokens * kChannels}));
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
