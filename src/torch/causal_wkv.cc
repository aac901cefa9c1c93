#include "torch/causal_wkv.h"

#include <array>
#include <vector>

#include "core/format.h"
#include "ops/causal_wkv/causal_wkv_grad.h"
#include "torch/cpu_kernels.h"
#include "torch/lowering.h"
#include "torch/wkv_sums.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

using WkvInputs = std::array<Tensor, 5>;  // k, v, w, u, state

// A state in f64: aa, bb and pp [B,C], an empty one with the exponent that empty sums have here.
struct State {
  Tensor numerator, denominator, exponent;

  explicit State(const Tensor& state)
      : numerator(state.select(1, 0)), denominator(state.select(1, 1)), exponent(state.select(1, 2)) {
    exponent = exponent.masked_fill((numerator == 0).logical_and(denominator == 0), kEmptyExponent);
  }
};

// y in f64.
Tensor results(const Tensor& k, const Tensor& v, const Tensor& w, const Tensor& u, const Tensor& state) {
  const Sums tokens = single_tokens(k, v);
  const State s(state);
  // The state is what a token before the first one would leave.
  const Tensor m = s.exponent.detach();
  const Tensor x = at::stack({s.numerator, s.denominator}) * at::exp(s.exponent - m);
  const Sums with_state{at::cat({x.unsqueeze(-2), tokens.x}, -2), at::cat({m.unsqueeze(-2), tokens.m}, -2)};
  const Sums met = before(with_state, w).tokens(1, with_state.length());
  const Sums sums = total({{met, at::zeros_like(w)}, {tokens, u}});
  return sums.x[0] / sums.x[1];
}

// The next state in f64, of at least one token.
Tensor next_state(const Tensor& k, const Tensor& v, const Tensor& w, const Tensor& state) {
  const std::int64_t tokens = k.size(1);
  const State s(state);
  const Tensor ages = at::arange(tokens - 1, -1, -1, w.options()).unsqueeze(-1);
  const auto with_state = [](const Tensor& of_state, const Tensor& of_tokens) {
    return at::cat({of_state.unsqueeze(1), of_tokens}, 1);
  };
  const Tensor exponents = with_state(s.exponent - static_cast<double>(tokens) * w, k - ages * w);
  const Tensor largest = exponents.amax(1);
  const Tensor weights = at::exp(exponents - largest.unsqueeze(1));
  return at::stack({(weights * with_state(s.numerator, v)).sum(1),
                    (weights * with_state(s.denominator, at::ones_like(v))).sum(1), largest},
                   1);
}

WkvInputs in_f64(const WkvInputs& inputs) {
  WkvInputs wide;
  for (std::size_t i = 0; i < inputs.size(); ++i) wide[i] = inputs[i].to(at::kDouble);
  return wide;
}

variable_list scan_backward(const WkvInputs& inputs, const Tensor& gradient, const Workers& workers) {
  variable_list made;
  for (const Tensor& input : inputs) made.push_back(at::empty_like(input));
  const CausalWkvBackwardInput<float> in{.k = elements(inputs[0]),
                                         .v = elements(inputs[1]),
                                         .w = elements(inputs[2]),
                                         .u = elements(inputs[3]),
                                         .state = elements(inputs[4]),
                                         .gy = elements(gradient)};
  const CausalWkvGradients<float> out{.k = new_elements(made[0]),
                                      .v = new_elements(made[1]),
                                      .w = new_elements(made[2]),
                                      .u = new_elements(made[3]),
                                      .state = new_elements(made[4])};
  causal_wkv_backward(Shape(inputs[0].sizes().vec()), in, out, workers);
  return made;
}

// The gradients of y, of the next state, or of both, by what is computed once more, recorded. Undefined: there is none.
variable_list tree_backward(const WkvInputs& inputs, const Tensor& of_y, const Tensor& of_next) {
  variable_list leaves;
  for (const Tensor& input : inputs) leaves.push_back(input.detach().requires_grad_());
  const torch::AutoGradMode record(true);
  const WkvInputs wide = in_f64({leaves[0], leaves[1], leaves[2], leaves[3], leaves[4]});
  variable_list made, gradients;
  if (of_y.defined()) {
    made.push_back(results(wide[0], wide[1], wide[2], wide[3], wide[4]));
    gradients.push_back(of_y.to(at::kDouble));
  }
  if (of_next.defined()) {
    made.push_back(next_state(wide[0], wide[1], wide[2], wide[4]));
    gradients.push_back(of_next.to(at::kDouble));
  }
  return torch::autograd::grad(made, leaves, gradients, /*retain_graph=*/false, /*create_graph=*/false,
                               /*allow_unused=*/true);
}

// What autograd's record holds on to beside tensors.
struct Record : torch::CustomClassHolder {
  explicit Record(std::shared_ptr<const Workers> threads) : workers(std::move(threads)) {}
  std::shared_ptr<const Workers> workers;
};

struct Mixer : public Function<Mixer> {
  static variable_list forward(AutogradContext* context, const Tensor& k, const Tensor& v, const Tensor& w,
                               const Tensor& u, const Tensor& state, const c10::intrusive_ptr<Record>& record) {
    const WkvInputs inputs{k.contiguous(), v.contiguous(), w.contiguous(), u.contiguous(), state.contiguous()};
    context->save_for_backward({inputs.begin(), inputs.end()});
    context->saved_data["record"] = c10::IValue::make_capsule(record);
    context->set_materialize_grads(false);
    if (has_cpu_kernels(k)) return run_on_cpu(CausalWkv{}, inputs, *record->workers);
    const CausalWkvTensors tree = causal_wkv_tree(k, v, w, u, state);
    return {tree.y, tree.next};
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    require<UnsupportedError>(!at::GradMode::is_enabled(), "causal_wkv", "libtorch can differentiate this once only");
    const variable_list saved = context->get_saved_variables();
    const WkvInputs inputs{saved[0], saved[1], saved[2], saved[3], saved[4]};
    const auto capsule = context->saved_data["record"].toCapsule();
    const Record& record = static_cast<const Record&>(*capsule);
    const bool has_kernel = gradients[0].defined() && has_cpu_kernels(inputs[0]);
    const Tensor of_y = has_kernel ? Tensor() : gradients[0];
    variable_list made(inputs.size());
    if (of_y.defined() || gradients[1].defined()) made = tree_backward(inputs, of_y, gradients[1]);
    if (has_kernel) {
      const variable_list more = scan_backward(inputs, gradients[0].contiguous(), *record.workers);
      for (std::size_t i = 0; i < made.size(); ++i) made[i] = made[i].defined() ? made[i] + more[i] : more[i];
    }
    made.emplace_back();  // of the record
    return made;
  }
};

}  // namespace

CausalWkvTensors causal_wkv_tree(const Tensor& k, const Tensor& v, const Tensor& w, const Tensor& u,
                                 const Tensor& state) {
  const WkvInputs wide = in_f64({k, v, w, u, state});
  return {results(wide[0], wide[1], wide[2], wide[3], wide[4]).to(k.scalar_type()),
          next_state(wide[0], wide[1], wide[2], wide[4]).to(k.scalar_type())};
}

CausalWkvTensors causal_wkv(const Tensor& k, const Tensor& v, const Tensor& w, const Tensor& u, const Tensor& state,
                            const std::shared_ptr<const Workers>& workers) {
  if (k.numel() == 0) return {at::zeros_like(k), state};
  const variable_list results = Mixer::apply(k, v, w, u, state, c10::make_intrusive<Record>(workers));
  return {results[0], results[1]};
}

Results lower(const weft::CausalWkv&, Inputs in, const Setting& setting) {
  const auto [y, next] = causal_wkv(in[0], in[1], in[2], in[3], in[4], setting.workers);
  return {y, next};
}

}  // namespace weft::torch_engine
