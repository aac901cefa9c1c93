// Weft's own CPU kernels on libtorch's tensors.
#pragma once

#include <torch/torch.h>

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "core/threads.h"
#include "kernel/kernel.h"

namespace weft::torch_engine {

/// Where there are such: f32 on the CPU.
inline bool has_cpu_kernels(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.scalar_type() == at::kFloat;
}

/// Of a contiguous f32 tensor, to read.
inline std::span<const float> elements(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}
/// Of one that was made to be written.
inline std::span<float> new_elements(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

/// Runs a kernel on contiguous inputs that are as `in` says.
std::vector<at::Tensor> run_kernel(const Kernel& kernel, std::span<const at::Tensor> inputs,
                                   std::span<const TensorType> out, const Workers& workers);

/// The operator's results.
template <class A, std::size_t N>
std::vector<at::Tensor> run_on_cpu(const A& attributes, const std::array<at::Tensor, N>& inputs,
                                   const Workers& workers) {
  std::vector<TensorType> in;
  for (const at::Tensor& input : inputs) in.push_back({DType::kF32, Shape(input.sizes().vec())});
  const std::vector<TensorType> out = infer(attributes, in);
  const std::array<const weft::Tensor*, N> constants{};
  const auto kernel =
      make_kernel(attributes, KernelRequest{.in = in, .out = out, .constants = constants, .threads = workers.count()});
  return run_kernel(*kernel, inputs, out, workers);
}

}  // namespace weft::torch_engine
