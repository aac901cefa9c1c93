#include "torch/cuda/ops.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <optional>

#include "core/format.h"
#include "torch/cuda/kernels.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

std::optional<cuda::Element> element_of(const Tensor& tensor) {
  if (!tensor.is_cuda()) return std::nullopt;
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return cuda::Element::kF32;
    case at::kDouble:
      return cuda::Element::kF64;
    case at::kBFloat16:
      return cuda::Element::kBF16;
    case at::kHalf:
      return cuda::Element::kF16;
    default:
      return std::nullopt;
  }
}

// What w, u, mixes and their gradients are in memory.
at::ScalarType real_of(const Tensor& tensor) { return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

Tensor ready(const Tensor& tensor, at::ScalarType type) { return tensor.to(type).contiguous(); }

cuda::Queue queue_of(const Tensor& tensor) {
  const c10::DeviceIndex device = tensor.device().index();
  return {device, c10::cuda::getCurrentCUDAStream(device).stream()};
}

Tensor scratch_for(const Tensor& tensor, std::size_t bytes) {
  return at::empty({static_cast<std::int64_t>(bytes)}, tensor.options().dtype(at::kByte));
}

void check(cuda::Error error) {
  if (error != nullptr) fail<weft::Error>("torch", "a CUDA kernel was refused: {}", error);
}

cuda::WkvShape wkv_shape(const Tensor& k, Wkv wkv) {
  cuda::WkvShape shape;
  shape.batch = k.size(0);
  shape.tokens = k.size(1);
  shape.channels = k.size(2);
  shape.released_kernel = wkv == Wkv::kReleasedKernel;
  return shape;
}

// k, v, w, u as the kernels want them.
std::array<Tensor, 4> ready(const std::array<Tensor, 4>& inputs) {
  const auto& [k, v, w, u] = inputs;
  return {k.contiguous(), ready(v, k.scalar_type()), ready(w, real_of(k)), ready(u, real_of(k))};
}

cuda::ShiftShape shift_shape(const Tensor& x, const QShift& shift) {
  cuda::ShiftShape shape;
  shape.batch = x.size(0);
  shape.height = shift.height;
  shape.width = shift.width;
  shape.channels = x.size(2);
  shape.pixels = shift.pixels;
  std::ranges::copy(shift.cuts(shape.channels), shape.cuts);
  return shape;
}

variable_list shift_and_mix(const Tensor& x, std::span<const Tensor> mixes, const QShift& shift) {
  const c10::cuda::CUDAGuard guard(x.device());
  cuda::ShiftForward tensors{};
  tensors.x = x.data_ptr();
  tensors.mixes = static_cast<int>(mixes.size());
  variable_list results;
  for (std::size_t m = 0; m < std::max<std::size_t>(mixes.size(), 1); ++m) {
    results.push_back(at::empty_like(x));
    tensors.y[m] = results.back().data_ptr();
    if (m < mixes.size()) tensors.mix[m] = mixes[m].data_ptr();
  }
  check(cuda::shift_forward(*element_of(x), shift_shape(x, shift), tensors, queue_of(x)));
  return results;
}

// gx, then those of the mixes.
variable_list shift_and_mix_backward(const Tensor& x, std::span<const Tensor> mixes, const variable_list& gradients,
                                     const QShift& shift) {
  const c10::cuda::CUDAGuard guard(x.device());
  cuda::ShiftBackward tensors{};
  variable_list results = {at::empty_like(x)};
  tensors.x = x.data_ptr();
  tensors.gx = results[0].data_ptr();
  tensors.mixes = static_cast<int>(mixes.size());
  for (std::size_t m = 0; m < mixes.size(); ++m) {
    results.push_back(at::empty_like(mixes[m]));
    tensors.mix[m] = mixes[m].data_ptr();
    tensors.gy[m] = gradients[m].data_ptr();
    tensors.gmix[m] = results.back().data_ptr();
  }
  const cuda::Element type = *element_of(x);
  const cuda::ShiftShape shape = shift_shape(x, shift);
  const Tensor scratch = scratch_for(x, cuda::shift_backward_scratch(type, shape, tensors.mixes));
  check(cuda::shift_backward(type, shape, tensors, scratch.data_ptr(), queue_of(x)));
  return results;
}

// x and mixes come ready; the mixes as one tensor [M,C], which has one gradient.
struct ShiftAndMix : public Function<ShiftAndMix> {
  static variable_list forward(AutogradContext* context, const Tensor& x, const Tensor& mixes, const QShift& shift) {
    context->save_for_backward({x, mixes});
    context->saved_data["height"] = std::int64_t{shift.height};
    context->saved_data["width"] = std::int64_t{shift.width};
    context->saved_data["pixels"] = std::int64_t{shift.pixels};
    context->saved_data["gamma"] = shift.gamma;
    return shift_and_mix(x, mixes.unbind(), shift);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    require<UnsupportedError>(!at::GradMode::is_enabled(), "q_shift", "libtorch can differentiate this once only");
    const variable_list saved = context->get_saved_variables();
    const auto integer = [&](const char* key) { return static_cast<int>(context->saved_data[key].toInt()); };
    const QShift shift{.height = integer("height"),
                       .width = integer("width"),
                       .pixels = integer("pixels"),
                       .gamma = context->saved_data["gamma"].toDouble()};
    const Tensor& x = saved[0];
    variable_list ready_gradients;
    for (const Tensor& gradient : gradients) {
      ready_gradients.push_back(gradient.defined() ? ready(gradient, x.scalar_type()) : at::zeros_like(x));
    }
    variable_list results = shift_and_mix_backward(x, saved[1].unbind(), ready_gradients, shift);
    const Tensor gx = results[0];
    results.erase(results.begin());
    return {gx, at::stack(results), Tensor()};
  }
};

}  // namespace

bool has_cuda_wkv(const Tensor& k) {
  return element_of(k).has_value() && k.dim() == 3 && k.numel() > 0 && wkv_shape(k, Wkv::kPaper).fits();
}

Tensor cuda_wkv(const std::array<Tensor, 4>& inputs, Wkv wkv) {
  const auto [k, v, w, u] = ready(inputs);
  const c10::cuda::CUDAGuard guard(k.device());
  const Tensor y = at::empty_like(k);
  const cuda::Element type = *element_of(k);
  const cuda::WkvShape shape = wkv_shape(k, wkv);
  const Tensor scratch = scratch_for(k, cuda::wkv_forward_scratch(type, shape));
  const cuda::WkvForward tensors{k.data_ptr(), v.data_ptr(), w.data_ptr(), u.data_ptr(), y.data_ptr()};
  check(cuda::wkv_forward(type, shape, tensors, scratch.data_ptr(), queue_of(k)));
  return y;
}

variable_list cuda_wkv_backward(const std::array<Tensor, 4>& inputs, const Tensor& gradient, Wkv wkv) {
  const auto [k, v, w, u] = ready(inputs);
  const c10::cuda::CUDAGuard guard(k.device());
  const Tensor gy = ready(gradient, k.scalar_type());
  const variable_list results = {at::empty_like(k), at::empty_like(v), at::empty_like(w), at::empty_like(u)};
  const cuda::Element type = *element_of(k);
  const cuda::WkvShape shape = wkv_shape(k, wkv);
  const Tensor scratch = scratch_for(k, cuda::wkv_backward_scratch(type, shape));
  const cuda::WkvBackward tensors{k.data_ptr(),          v.data_ptr(),          w.data_ptr(),
                                  u.data_ptr(),          gy.data_ptr(),         results[0].data_ptr(),
                                  results[1].data_ptr(), results[2].data_ptr(), results[3].data_ptr()};
  check(cuda::wkv_backward(type, shape, tensors, scratch.data_ptr(), queue_of(k)));
  variable_list converted;
  for (std::size_t i = 0; i < results.size(); ++i) converted.push_back(results[i].to(inputs[i].scalar_type()));
  return converted;
}

bool has_cuda_shift(const Tensor& x, const QShift& shift) {
  return element_of(x).has_value() && x.numel() > 0 && shift_shape(x, shift).fits();
}

Tensor cuda_shift(const Tensor& x, const QShift& shift) { return shift_and_mix(x.contiguous(), {}, shift)[0]; }

std::vector<Tensor> cuda_shift_and_mix(const Tensor& x, std::span<const Tensor> mixes, const QShift& shift) {
  require<ConfigError>(!mixes.empty() && mixes.size() <= cuda::kLargestMixes, "q_shift",
                       "1 to {} mixes can be made at once, got {}", cuda::kLargestMixes, mixes.size());
  std::vector<Tensor> rows;
  for (const Tensor& mix : mixes) rows.push_back(mix.reshape({x.size(2)}).to(real_of(x)));
  return ShiftAndMix::apply(x.contiguous(), at::stack(rows), shift);
}

}  // namespace weft::torch_engine
