#include "torch/bi_wkv.h"

#include <array>
#include <initializer_list>
#include <span>
#include <vector>

#include "core/format.h"
#include "core/threads.h"
#include "kernel/kernel.h"
#include "ops/bi_wkv/bi_wkv_grad.h"
#include "torch/cuda/ops.h"
#include "torch/lowering.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr double kEmpty = -1e30;  // the exponent of an empty sum: finite, so that differences of two are no NaN

// For each token the sums Σ f·e^k·v and Σ f·e^k over some tokens, as x·e^m. Exponents are constants to autograd: the
// quotient does not depend on them, so that everything differentiable is in x.
struct Sums {
  Tensor x;  // [2,…,T,C]: with v, without
  Tensor m;  // […,T,C]

  Sums tokens(std::int64_t begin, std::int64_t end, std::int64_t step = 1) const {
    return {x.slice(-2, begin, end, step), m.slice(-2, begin, end, step)};
  }
  Sums flipped() const { return {x.flip(-2), m.flip(-2)}; }
  std::int64_t length() const { return m.size(-2); }
};

// `count` empty sums in front of or behind the tokens.
Sums padded(const Sums& sums, std::int64_t front, std::int64_t back) {
  return {at::constant_pad_nd(sums.x, {0, 0, front, back}), at::constant_pad_nd(sums.m, {0, 0, front, back}, kEmpty)};
}

// e^shift · sums; the shift broadcasts to [T,C].
struct Term {
  Sums sums;
  Tensor shift;
};

Sums total(std::initializer_list<Term> terms) {
  std::vector<Tensor> exponents;
  Tensor m;
  for (const auto& [sums, shift] : terms) {
    exponents.push_back(sums.m + shift.detach());
    m = m.defined() ? at::maximum(m, exponents.back()) : exponents.back();
  }
  Tensor x;
  std::size_t i = 0;
  for (const auto& [sums, shift] : terms) {
    // The last difference is zero, and carries the gradient of the shift.
    const Tensor scaled = sums.x * at::exp((exponents[i++] - m) + (shift - shift.detach()));
    x = x.defined() ? x + scaled : scaled;
  }
  return {x, m};
}

// For each token t the sum over those before it: Σ_{i<t} e^{−(t−1−i)·w} sums_i. Pairs of tokens are summed, the same is
// done to the pairs, and what is before a pair's second token is what is before the pair and its first.
Sums before(const Sums& sums, const Tensor& w) {
  const std::int64_t length = sums.length();
  if (length <= 1) return {at::zeros_like(sums.x), at::full_like(sums.m, kEmpty)};
  const Sums even = length % 2 == 0 ? sums : padded(sums, 0, 1);
  const Sums first = even.tokens(0, even.length(), 2);
  const Sums second = even.tokens(1, even.length(), 2);
  const Tensor none = at::zeros_like(w);
  const Sums before_first = before(total({{first, -w}, {second, none}}), 2 * w);
  const Sums before_second = total({{before_first, -w}, {first, none}});
  const auto woven = [&](const Tensor& a, const Tensor& b) {
    return at::stack({a, b}, -2).flatten(-3, -2).slice(-2, 0, length);
  };
  return {woven(before_first.x, before_second.x), woven(before_first.m, before_second.m)};
}

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

std::span<const float> elements(const Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}
std::span<float> new_elements(const Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

// Weft's own kernels, for f32 on the CPU.
bool has_kernels(const Tensor& tensor) { return tensor.device().is_cpu() && tensor.scalar_type() == at::kFloat; }

Tensor scan(const std::array<Tensor, 4>& inputs, Wkv wkv, const Workers& workers) {
  std::vector<TensorType> types;
  std::vector<const std::byte*> in;
  for (const Tensor& input : inputs) {
    types.push_back({DType::kF32, Shape(input.sizes().vec())});
    in.push_back(std::as_bytes(elements(input)).data());
  }
  const Tensor y = at::empty_like(inputs[0]);
  std::byte* const out = std::as_writable_bytes(new_elements(y)).data();
  const std::array<const weft::Tensor*, 4> constants{};
  const auto kernel = make_kernel(
      BiWkv{.wkv = wkv},
      {.in = types, .out = {types.data(), 1}, .constants = constants, .threads = workers.count(), .packs = nullptr});
  const Tensor scratch = at::empty({static_cast<std::int64_t>(kernel->scratch_bytes())}, at::kByte);
  workers.enter([&] {
    kernel->run({.in = in,
                 .out = {&out, 1},
                 .scratch = reinterpret_cast<std::byte*>(scratch.data_ptr<std::uint8_t>()),
                 .workers = workers});
  });
  return y;
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
    return has_kernels(k) ? scan(inputs, record->wkv, *record->workers) : bi_wkv_tree(k, v, w, u, record->wkv);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    require<UnsupportedError>(!at::GradMode::is_enabled(), "bi_wkv", "libtorch can differentiate this once only");
    const variable_list saved = context->get_saved_variables();
    const std::array<Tensor, 4> inputs{saved[0], saved[1], saved[2], saved[3]};
    const auto capsule = context->saved_data["record"].toCapsule();
    const Record& record = static_cast<const Record&>(*capsule);
    const Tensor gradient = gradients[0].contiguous();
    variable_list result = has_cuda_wkv(inputs[0])  ? cuda_wkv_backward(inputs, gradient, record.wkv)
                           : has_kernels(inputs[0]) ? scan_backward(inputs, gradient, record.wkv, *record.workers)
                                                    : tree_backward(inputs, gradient, record.wkv);
    result.emplace_back();  // of the record
    return result;
  }
};

}  // namespace

at::Tensor bi_wkv_tree(const at::Tensor& k, const at::Tensor& v, const at::Tensor& w, const at::Tensor& u, Wkv wkv) {
  const Tensor key = k.to(at::kDouble);
  const Tensor value = v.to(at::kDouble);
  const Tensor m = key.detach().clamp_min(kEmpty);
  const Sums tokens{at::stack({value, at::ones_like(value)}) * at::exp(key - m), m};
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
