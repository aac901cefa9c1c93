// In place of the CUDA kernels where there is no CUDA.
#include "torch/cuda/ops.h"

#include "core/format.h"

namespace weft::torch_engine {
namespace {

[[noreturn]] void fail_without_cuda() {
  fail<UnsupportedError>("torch", "this build of weft has no CUDA kernels; build it with nvcc and a libtorch for CUDA");
}

}  // namespace

bool has_cuda_wkv(const at::Tensor&) { return false; }
at::Tensor cuda_wkv(const std::array<at::Tensor, 4>&, Wkv) { fail_without_cuda(); }
std::vector<at::Tensor> cuda_wkv_backward(const std::array<at::Tensor, 4>&, const at::Tensor&, Wkv) {
  fail_without_cuda();
}

bool has_cuda_shift(const at::Tensor&, const QShift&) { return false; }
at::Tensor cuda_shift(const at::Tensor&, const QShift&) { fail_without_cuda(); }
std::vector<at::Tensor> cuda_shift_and_mix(const at::Tensor&, std::span<const at::Tensor>, const QShift&) {
  fail_without_cuda();
}

}  // namespace weft::torch_engine
