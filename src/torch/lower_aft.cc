// Attention free attention, with whole matrices of biases: one for a table, one for each group of keys with filters.
#include "torch/lowering.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;

constexpr double kHidden = -std::numeric_limits<double>::infinity();

at::TensorOptions integers_like(const Tensor& x) { return at::TensorOptions().dtype(at::kLong).device(x.device()); }

// Filters [F,h,w] as what they add for each pair of tokens, [F,T,T].
Tensor spread_out(const Tensor& filters, const weft::Aft& a, std::int64_t tokens) {
  const std::int64_t kernel_h = filters.size(1);
  const std::int64_t kernel_w = filters.size(2);
  const Tensor at = at::arange(tokens, integers_like(filters));
  const std::int64_t width = a.width > 0 ? a.width : tokens;
  const auto distances = [](const Tensor& along) { return along.unsqueeze(0) - along.unsqueeze(1); };
  const Tensor rows = distances(at.div(width, "floor")) + kernel_h / 2;
  const Tensor columns = distances(at.remainder(width)) + (a.causal ? kernel_w - 1 : kernel_w / 2);
  const Tensor inside =
      (rows >= 0).logical_and(rows < kernel_h).logical_and(columns >= 0).logical_and(columns < kernel_w);
  const Tensor taps = (rows * kernel_w + columns).masked_fill(inside.logical_not(), kernel_h * kernel_w);
  const Tensor none = at::zeros({filters.size(0), 1}, filters.options());
  return at::cat({filters.reshape({filters.size(0), -1}), none}, 1)
      .index_select(1, taps.reshape({-1}))
      .reshape({-1, tokens, tokens});
}

// [F,T,T], or [1,T,T] with a table or without a bias.
Tensor bias_of_pairs(const weft::Aft& a, Inputs in, std::int64_t tokens) {
  if (in.size() == 2) return at::zeros({1, tokens, tokens}, in[0].options());
  if (in[2].dim() == 3) return spread_out(in[2], a, tokens);
  const Tensor table = in[2].slice(0, 0, tokens).slice(1, 0, tokens);
  if (a.window == 0) return table.unsqueeze(0);
  const Tensor at = at::arange(tokens, integers_like(table));
  const Tensor far = (at.unsqueeze(0) - at.unsqueeze(1)).abs() >= a.window;
  return table.masked_fill(far, 0).unsqueeze(0);
}

// Of keys [B,T,K] and biases [F,T,T]: how far the exponents in one sum may lie apart.
double span_of(const Tensor& keys, const Tensor& bias) {
  const at::NoGradGuard none;
  const auto widest = [](const Tensor& x, std::int64_t axis) { return (x.amax(axis) - x.amin(axis)).max(); };
  return (widest(keys, 1) + widest(bias, -1)).item<double>();
}

// Each sum by its own largest term: what any keys and biases need, and as much memory as attention with a head for each
// key.
Tensor by_softmax(const Tensor& keys, const Tensor& bias, const Tensor& values) {
  const std::int64_t share = keys.size(2) / bias.size(0);
  const Tensor scores = bias.repeat_interleave(share, 0).unsqueeze(0) + keys.transpose(1, 2).unsqueeze(2);
  return at::matmul(at::softmax(scores, -1), values.transpose(1, 2)).transpose(1, 2);
}

// Products of e^bias with [e^k·v | e^k].
Tensor by_products(const Tensor& keys, const Tensor& bias, const Tensor& values) {
  const std::int64_t batch = keys.size(0);
  const std::int64_t tokens = keys.size(1);
  const std::int64_t filters = bias.size(0);
  const Tensor weights = (keys - keys.detach().amax(1, /*keepdim=*/true)).exp();
  const auto by_filter = [&](const Tensor& x) { return x.reshape({batch, tokens, filters, -1}).transpose(1, 2); };
  const Tensor of_pairs = (bias - bias.detach().amax(-1, /*keepdim=*/true)).exp();  // [F,T,T]
  const Tensor numerators = at::matmul(of_pairs, by_filter(weights.unsqueeze(3) * values));
  const Tensor denominators = at::matmul(of_pairs, by_filter(weights));
  return numerators.transpose(1, 2).reshape(values.sizes()) /
         denominators.transpose(1, 2).reshape({batch, tokens, keys.size(2), 1});
}

// Running sums, in f64: they are long.
Tensor by_running_sums(const Tensor& keys, const Tensor& values) {
  const Tensor weights = (keys - keys.detach().amax(1, /*keepdim=*/true)).to(at::kDouble).exp().unsqueeze(3);
  return ((weights * values).cumsum(1) / weights.cumsum(1)).to(values.scalar_type());
}

}  // namespace

Results lower(const weft::Aft& a, Inputs in, const Setting& setting) {
  if (setting.out.elements() == 0) return at::zeros(extents(setting.out), in[1].options());
  const bool wide = in[0].scalar_type() == at::kFloat || in[0].scalar_type() == at::kDouble;
  std::vector<Tensor> inputs;
  for (const Tensor& input : in) inputs.push_back(wide ? input : input.to(at::kFloat));
  const Tensor& keys = inputs[0];
  const std::int64_t tokens = setting.out[1];
  const Tensor values =
      inputs[1].reshape({setting.out[0], tokens, keys.size(2), setting.out[2] / keys.size(2)});  // [B,T,K,C/K]
  const auto compute = [&] {
    // Far from where e^x has no normal numbers in f32 (−87) and f64 (−708).
    const double widest = keys.scalar_type() == at::kDouble ? 600 : 60;
    if (inputs.size() == 2) {
      if (!a.causal) return (at::softmax(keys, 1).unsqueeze(3) * values).sum(1, true).expand_as(values);
      if (span_of(keys, at::zeros({1, 1, 1}, keys.options())) <= widest) return by_running_sums(keys, values);
    }
    Tensor bias = bias_of_pairs(a, inputs, tokens);
    const bool near = span_of(keys, bias) <= widest;
    if (a.causal) {
      const auto booleans = at::TensorOptions().dtype(at::kBool).device(bias.device());
      bias = bias.masked_fill(at::ones({tokens, tokens}, booleans).triu(1), kHidden);
    }
    return near ? by_products(keys, bias, values) : by_softmax(keys, bias, values);
  };
  return compute().reshape(extents(setting.out)).to(in[1].scalar_type());
}

}  // namespace weft::torch_engine
