#include "torch/bi_wkv.h"

#include <array>
#include <vector>

#include "core/format.h"
#include "core/threads.h"
#include "ops/bi_wkv/bi_wkv_grad.h"
#include "torch/cpu_kernels.h"
#include "torch/cuda/ops.h"
#include "torch/lowering.h"
#include "torch/wkv_sums.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

Sums behind(const Sums& sums, const Tensor& w) { return before(sums.flipped(), w).flipped(); }

Sums paper(const Sums& tokens, const Tensor& w, const Tensor& u) {
  const Tensor none = at::zeros_like(w);
  return total({{before(tokens, w), none}, {behind(tokens, w), none}, {tokens, u}});
}

// The terms of the formula one after the other; L tokens to a run, s the first of t's run.
Sums released_kernel(const Sums& tokens, const Tensor& w, const Tensor& u) {
  const std::int64_t count = tokens.length();
  const std::int64_t length = released_kernel_run(count);
  const std::int64_t runs = (count + length - 1) / length;
  const Sums whole = padded(tokens, 0, runs * length - count);
  const auto by_run = [&](const Tensor& x) { return x.unflatten(-2, at::IntArrayRef{runs, length}); };
  const Sums run{by_run(whole.x), by_run(whole.m)};  // […,runs,L,C]
  const Tensor none = at::zeros_like(w);

  // s ≤ i < t: e^{−(t−i−1)·w}
  const Sums within = before(run, w);
  // i < s: e^{−(t−i)·w} = e^{−(t−s+1)·w} · e^{−(s−1−i)·w}
  const Sums ends = total({{within.tokens(length - 1, length), -w}, {run.tokens(length - 1, length), none}});
  const Sums runs_before = before({ends.x.squeeze(-2), ends.m.squeeze(-2)}, static_cast<double>(length) * w);
  const Sums earlier{runs_before.x.unsqueeze(-2), runs_before.m.unsqueeze(-2)};
  const Tensor distance = at::arange(1, length + 1, w.options()).unsqueeze(-1) * w;
  // s < i ≤ t: e^{(t−i)·w}·(1 − e^w), the factor as e^large times a difference that cannot overflow
  const Sums rest = padded(run.tokens(1, length), 1, 0);
  const Sums growing = total({{before(rest, -w), w}, {rest, none}});
  const Tensor large = at::relu(w).detach();
  const Sums signed_growing{growing.x * (at::exp(-large) - at::exp(w - large)), growing.m};

  const auto by_token = [&](const Sums& sums) {
    return Sums{sums.x.flatten(-3, -2).slice(-2, 0, count), sums.m.flatten(-3, -2).slice(-2, 0, count)};
  };
  const Sums forward = total({{within, none}, {earlier, -distance}, {signed_growing, large}});
  return total({{by_token(forward), none}, {behind(tokens, w), -w}, {tokens, u}});
}

variable_list scan_backward(const std::array<Tensor, 4>& inputs, const Tensor& gradient, Wkv wkv,
                            const Workers& workers) {
  variable_list result;
  for (const Tensor& input : inputs) result.push_back(at::empty_like(input));
  const BiWkvBackwardInput<float> in{.k = elements(inputs[0]),
                                     .v = elements(inputs[1]),
                                     .w = elements(inputs[2]),
                                     .u = elements(inputs[3]),
                                     .gy = elements(gradient)};
  const BiWkvGradients<float> out{.k = new_elements(result[0]),
                                  .v = new_elements(result[1]),
                                  .w = new_elements(result[2]),
                                  .u = new_elements(result[3])};
  bi_wkv_backward(wkv, Shape(inputs[0].sizes().vec()), in, out, workers);
  return result;
}

// The tree once more, recorded.
variable_list tree_backward(const std::array<Tensor, 4>& inputs, const Tensor& gradient, Wkv wkv) {
  variable_list leaves;
  for (const Tensor& input : inputs) leaves.push_back(input.detach().requires_grad_());
  const torch::AutoGradMode record(true);
  const Tensor y = bi_wkv_tree(leaves[0], leaves[1], leaves[2], leaves[3], wkv);
  return torch::autograd::grad({y}, leaves, {gradient}, /*retain_graph=*/false, /*create_graph=*/false,
                               /*allow_unused=*/true);  // one token has no use for w
}

// What autograd's record holds on to beside tensors.
struct Record : torch::CustomClassHolder {
  Record(Wkv form, std::shared_ptr<const Workers> threads) : wkv(form), workers(std::move(threads)) {}
  Wkv wkv;
  std::shared_ptr<const Workers> workers;
};

struct Mixer : public Function<Mixer> {
  static Tensor forward(AutogradContext* context, const Tensor& k, const Tensor& v, const Tensor& w, const Tensor& u,
                        const c10::intrusive_ptr<Record>& record) {
    const std::array<Tensor, 4> inputs{k.contiguous(), v.contiguous(), w.contiguous(), u.contiguous()};
    context->save_for_backward({inputs.begin(), inputs.end()});
    context->saved_data["record"] = c10::IValue::make_capsule(record);
    if (has_cuda_wkv(k)) return cuda_wkv(inputs, record->wkv);
    return has_cpu_kernels(k) ? run_on_cpu(BiWkv{.wkv = record->wkv}, inputs, *record->workers)[0]
                              : bi_wkv_tree(k, v, w, u, record->wkv);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    require<UnsupportedError>(!at::GradMode::is_enabled(), "bi_wkv", "libtorch can differentiate this once only");
    const variable_list saved = context->get_saved_variables();
    const std::array<Tensor, 4> inputs{saved[0], saved[1], saved[2], saved[3]};
    const auto capsule = context->saved_data["record"].toCapsule();
    const Record& record = static_cast<const Record&>(*capsule);
    const Tensor gradient = gradients[0].contiguous();
    variable_list result = has_cuda_wkv(inputs[0])      ? cuda_wkv_backward(inputs, gradient, record.wkv)
                           : has_cpu_kernels(inputs[0]) ? scan_backward(inputs, gradient, record.wkv, *record.workers)
                                                        : tree_backward(inputs, gradient, record.wkv);
    result.emplace_back();  // of the record
    return result;
  }
};

}  // namespace

at::Tensor bi_wkv_tree(const at::Tensor& k, const at::Tensor& v, const at::Tensor& w, const at::Tensor& u, Wkv wkv) {
  const Sums tokens = single_tokens(k.to(at::kDouble), v.to(at::kDouble));
  const Tensor decay = w.to(at::kDouble);
  const Tensor bonus = u.to(at::kDouble);
  const Sums sums = wkv == Wkv::kPaper ? paper(tokens, decay, bonus) : released_kernel(tokens, decay, bonus);
  return (sums.x[0] / sums.x[1]).to(k.scalar_type());
}

at::Tensor bi_wkv(const at::Tensor& k, const at::Tensor& v, const at::Tensor& w, const at::Tensor& u, Wkv wkv,
                  const std::shared_ptr<const Workers>& workers) {
  if (k.numel() == 0) return at::zeros_like(k);
  return Mixer::apply(k, v, w, u, c10::make_intrusive<Record>(wkv, workers));
}

Results lower(const weft::BiWkv& attributes, Inputs in, const Setting& setting) {
  return bi_wkv(in[0], in[1], in[2], in[3], attributes.wkv, setting.workers);
}

}  // namespace weft::torch_engine
