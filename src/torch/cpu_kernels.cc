#include "torch/cpu_kernels.h"

#include "torch/lowering.h"

namespace weft::torch_engine {

std::vector<at::Tensor> run_kernel(const Kernel& kernel, std::span<const at::Tensor> inputs,
                                   std::span<const TensorType> out, const Workers& workers) {
  std::vector<const std::byte*> from;
  for (const at::Tensor& input : inputs) from.push_back(std::as_bytes(elements(input)).data());
  std::vector<at::Tensor> results;
  std::vector<std::byte*> to;
  for (const TensorType& type : out) {
    results.push_back(at::empty(extents(type.shape), inputs[0].options()));
    to.push_back(std::as_writable_bytes(new_elements(results.back())).data());
  }
  const at::Tensor scratch = at::empty({static_cast<std::int64_t>(kernel.scratch_bytes())}, at::kByte);
  workers.enter([&] {
    kernel.run({.in = from,
                .out = to,
                .scratch = reinterpret_cast<std::byte*>(scratch.data_ptr<std::uint8_t>()),
                .workers = workers});
  });
  return results;
}

}  // namespace weft::torch_engine
