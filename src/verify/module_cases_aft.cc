// Attention free attention, with the projections and the gate around it: y = project(sigmoid(q) · aft(k, v)).
#include <cmath>

#include "ops/ops.h"
#include "verify/module.h"

namespace weft {
namespace {

constexpr std::int64_t kLargestFilter = 1023;

// Names in a checkpoint.
struct Names {
  std::string q, k, v, project;
};
const Names kShort{"to_q", "to_k", "to_v", "project"};

struct Layer {
  const Module& m;
  Names names;
  std::int64_t channels;
  bool bias = true;  // of the projections to q, k and v

  Value project(Value x, const std::string& name, std::int64_t to, bool with_bias) const {
    const Value weight = m.param(name + ".weight", {to, x.shape()[-1]});
    return linear(x, weight, with_bias ? std::optional(m.param(name + ".bias", {to})) : std::nullopt);
  }
  // x [B,T,dim] to [B,T,dim].
  Value operator()(Value x, std::int64_t keys, std::optional<Value> position_bias, const Aft& attributes) const {
    const Value q = project(x, names.q, channels, bias);
    const Value k = project(x, names.k, keys, bias);
    const Value v = project(x, names.v, channels, bias);
    return project(mul(sigmoid(q), aft(k, v, position_bias, attributes)), names.project, x.shape()[2], true);
  }
};

// w [F,taps], each row to mean beta and deviation gamma. Of n taps layer_norm divides by n, the deviation by n − 1.
Value standardised(const Module& m, Value w) {
  const std::int64_t filters = w.shape()[0];
  const std::int64_t taps = w.shape()[1];
  Tensor unbiased(DType::kF32, {taps});
  const auto n = static_cast<double>(taps);
  std::ranges::fill(unbiased.mutable_data<float>(), static_cast<float>(std::sqrt((n - 1) / n)));
  const Value zeros = m.graph.constant(Tensor::zeros({DType::kF32, {taps}}));
  const Value unit = layer_norm(w, m.graph.constant(unbiased), zeros, 0);
  const Value gamma = reshape(m.param("gamma", {filters}), {filters, 1});
  return add(mul(unit, gamma), reshape(m.param("beta", {filters}), {filters, 1}));
}

}  // namespace

// x [T,B,d_model].
void aft_with_table(const Module& m) {
  const Value x = permute(m.sequence("x"), {1, 0, 2});
  const std::int64_t seq_len = m.option("seq_len");
  const Layer layer{
      .m = m, .names = {"query", "key", "value", "output"}, .channels = m.option("d_model"), .bias = m.flag("bias")};
  const Aft attributes{.causal = m.flag("causal"), .window = m.option("local_window_size")};
  m.output(permute(layer(x, layer.channels, m.param("pos_bias", {seq_len, seq_len}), attributes), {1, 0, 2}));
}

// The table is U Vᵀ.
void aft_with_factors(const Module& m) {
  const Shape factor{m.option("max_seq_len"), m.option("position_bias_dim")};
  const Layer layer{
      .m = m, .names = {"Q", "K", "V", "out_linear"}, .channels = m.option("hidden_dim"), .bias = m.flag("use_bias")};
  const bool full = m.config.at("local_window_size").is_null();
  const Aft attributes{.causal = m.flag("causal"), .window = full ? 0 : m.option("local_window_size")};
  const Value table = linear(m.param("u", factor), m.param("v", factor));
  m.output(layer(m.sequence("x"), layer.channels, table, attributes));
}

// x [B,T,dim], or with ndim 2 [B,H,W,dim].
void aft_with_filters(const Module& m) {
  const std::int64_t heads = m.option("heads");
  const std::int64_t side = m.option("window", 2);
  const int axes = m.option("ndim");
  require<ConfigError>(side <= kLargestFilter, m.graph.name(), "window must be 2 … {}, got {}", kLargestFilter, side);
  require<ConfigError>(axes <= 2, m.graph.name(), "ndim must be 1 or 2, got {}", axes);
  const Value x = axes == 2 ? m.map("x") : m.sequence("x");
  const Shape shape(std::vector(x.shape().extents().begin(), x.shape().extents().end()));  // x's own moves
  const Layer layer{.m = m, .names = kShort, .channels = m.option("dim")};
  Aft attributes{.causal = m.flag("causal")};
  if (axes == 2) {
    attributes.height = static_cast<int>(shape[1]);
    attributes.width = static_cast<int>(shape[2]);
  }
  const std::int64_t height = axes == 2 ? side : 1;
  const Value w = m.param("w", axes == 2 ? Shape{heads, side, side} : Shape{heads, side});
  const Value filters = reshape(standardised(m, reshape(w, {heads, height * side})), {heads, height, side});
  const Value tokens = reshape(x, {shape[0], shape.elements() / (shape[0] * shape[-1]), shape[-1]});
  m.output(reshape(layer(tokens, heads, filters, attributes), shape));
}

void aft_simple(const Module& m) {
  const Layer layer{.m = m, .names = kShort, .channels = m.option("hidden_dim")};
  m.output(layer(m.sequence("x"), layer.channels, std::nullopt, {.causal = m.flag("causal")}));
}

}  // namespace weft
