#include "models/rwkv4/rwkv4.h"

#include <algorithm>
#include <cmath>

#include "core/format.h"
#include "ops/ops.h"

namespace weft::rwkv4 {
namespace {

constexpr float kNormEps = 1e-5F;

// One layer's share of the network.
struct Layer {
  const Config& config;
  int index;

  // 0 at the first layer … 1 at the last.
  double depth_ratio() const { return config.n_layer > 1 ? static_cast<double>(index) / (config.n_layer - 1) : 0; }
  // 1 at the first layer … almost 0 at the last.
  double remaining_ratio() const { return 1 - static_cast<double>(index) / config.n_layer; }
};

// In the place of the official orthogonal matrices, independent numbers of the same variance.
Initializer spread_init(std::int64_t fan_in, double scale = 1) {
  return init::truncated_normal(static_cast<float>(scale / std::sqrt(static_cast<double>(fan_in))));
}
Initializer zero_init() { return init::constant(0); }

// (i/C)^power + shift
Initializer mix_init(const Config& config, double power, double shift = 0) {
  return init::each([=, channels = config.n_embd](std::int64_t i) {
    return std::pow(static_cast<double>(i) / channels, power) + shift;
  });
}

Initializer decay_init(const Layer& layer) {
  const double span = std::max(layer.config.dim_att - 1, 1);
  return init::each([power = 0.7 + 1.3 * layer.depth_ratio(), span](std::int64_t i) {
    return -5 + 8 * std::pow(static_cast<double>(i) / span, power);
  });
}

Initializer first_init() {
  return init::each([](std::int64_t i) { return std::log(0.3) + 0.5 * static_cast<double>((i + 1) % 3 - 1); });
}

Tensor filled(Shape shape, float value) {
  Tensor tensor(DType::kF32, std::move(shape));
  std::ranges::fill(tensor.mutable_data<float>(), value);
  return tensor;
}

// Sums over no tokens: [B,3,C] of numerator 0, denominator 0 and an exponent that outweighs nothing.
Tensor empty_sums(std::int64_t batch, std::int64_t channels) {
  Tensor sums = Tensor::zeros({DType::kF32, {batch, 3, channels}});
  const auto values = sums.mutable_data<float>();
  for (std::size_t b = 0; b < static_cast<std::size_t>(batch); ++b) {
    const auto n = static_cast<std::size_t>(channels);
    std::ranges::fill(values.subspan((3 * b + 2) * n, n), -1e30F);
  }
  return sums;
}

// The last of x [B,T,C], as [B,C].
Value last_token(Value x) {
  const std::int64_t tokens = x.shape()[1];
  return reshape(slice(x, 1, tokens - 1, tokens), {x.shape()[0], x.shape()[2]});
}

// x [B,T,C] and the tokens before each, from which each projection takes its own mix.
class TokenMix {
 public:
  TokenMix(const Scope& s, Value x) : x_(x), shifted_(x), channels_(x.shape()[2]) {
    const Value before = s.state("x", filled({x.shape()[0], channels_}, 0));
    shifted_ = token_shift(x, before);
    s.graph().next_state(before, last_token(x));
  }
  // x·mix + shifted·(1 − mix)
  Value operator()(const Scope& s, std::string_view name, Initializer initializer) const {
    return lerp(x_, shifted_, s.param(name, {1, 1, channels_}, std::move(initializer)));
  }

 private:
  Value x_, shifted_;
  std::int64_t channels_;
};

// Eq. (11)–(17): σ(R) ⊙ WKV(K, V), projected. x [B,T,C]
Value time_mix(const Scope& s, Value x, const Layer& layer) {
  const auto guard = s.enter();
  const Config& c = layer.config;
  const double power = layer.remaining_ratio();
  const Value decay = s.param("time_decay", {c.dim_att}, decay_init(layer));
  const Value first = s.param("time_first", {c.dim_att}, first_init());
  const TokenMix mix(s, x);
  const Value xk = mix(s, "time_mix_k", mix_init(c, power));
  const Value xv = mix(s, "time_mix_v", mix_init(c, power, 0.3 * layer.depth_ratio()));
  const Value xr = mix(s, "time_mix_r", mix_init(c, 0.5 * power));
  const Value k = linear(xk, s["key"], c.dim_att, zero_init());
  const Value v = linear(xv, s["value"], c.dim_att, spread_init(c.n_embd));
  const Value r = linear(xr, s["receptance"], c.dim_att, zero_init());
  const Value sums = s.state("wkv", empty_sums(x.shape()[0], c.dim_att));
  const auto [wkv, next] = causal_wkv(k, v, exp(decay), first, sums);
  s.graph().next_state(sums, next);
  return linear(mul(sigmoid(r), wkv), s["output"], c.n_embd, zero_init());
}

// Eq. (18)–(20): σ(R) ⊙ W_V·relu(K)². x [B,T,C]
Value channel_mix(const Scope& s, Value x, const Layer& layer) {
  const auto guard = s.enter();
  const Config& c = layer.config;
  const TokenMix mix(s, x);
  const Value xk = mix(s, "time_mix_k", mix_init(c, layer.remaining_ratio()));
  const Value xr = mix(s, "time_mix_r", mix_init(c, layer.remaining_ratio()));
  const Value hidden = squared_relu(linear(xk, s["key"], c.dim_ffn, spread_init(c.n_embd)));
  const Value r = linear(xr, s["receptance"], c.n_embd, zero_init());
  return mul(sigmoid(r), linear(hidden, s["value"], c.n_embd, zero_init()));
}

Value block(const Scope& s, Value x, const Layer& layer) {
  const auto guard = s.enter();
  x = add(x, time_mix(s["att"], layer_norm(x, s["ln1"], kNormEps), layer));
  return add(x, channel_mix(s["ffn"], layer_norm(x, s["ln2"], kNormEps), layer));
}

}  // namespace

Value build(Graph& graph, Value tokens, const Config& c, LogitsOf which) {
  const Scope s(graph);
  // Next to nothing, so that the norm behind it decides: the small embeddings of the official code.
  const Value table = s["emb"].param("weight", {c.vocab_size, c.n_embd}, init::uniform(1e-4F));
  Value x = layer_norm(embedding(tokens, table), s["blocks"][0]["ln0"], kNormEps);
  for (int i = 0; i < c.n_layer; ++i) x = block(s["blocks"][i], x, {c, i});
  if (which == LogitsOf::kLast) x = last_token(x);
  return linear(layer_norm(x, s["ln_out"], kNormEps), s["head"], c.vocab_size, spread_init(c.n_embd, 0.5));
}

}  // namespace weft::rwkv4
