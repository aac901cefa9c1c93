// The CUDA kernels beside the same sums in libtorch's operators.
#include <c10/cuda/CUDAStream.h>
#include <torch/torch.h>

#include <cstdio>
#include <exception>

#include "core/format.h"
#include "tests/gpu/device.h"
#include "torch/bi_wkv.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;

using Form = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, const Tensor&, Wkv);

struct Times {
  double forward, step;
};

Times measure(Form form, at::IntArrayRef sizes, at::ScalarType type) {
  const at::TensorOptions options = at::TensorOptions(at::kCUDA).dtype(type);
  const at::TensorOptions real = at::TensorOptions(at::kCUDA).dtype(at::kFloat);
  const Tensor k = at::randn(sizes, options).requires_grad_(), v = at::randn(sizes, options).requires_grad_();
  const Tensor w = (at::randn({sizes[2]}, real) / sizes[1]).requires_grad_();
  const Tensor u = (at::randn({sizes[2]}, real) / sizes[1]).requires_grad_();
  const Tensor gy = at::randn(sizes, options);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  Times times{};
  times.forward = gpu::seconds(stream, [&] {
    const torch::NoGradGuard no_gradients;
    form(k, v, w, u, Wkv::kPaper);
  });
  times.step = gpu::seconds(stream, [&] {
    torch::autograd::grad({form(k, v, w, u, Wkv::kPaper)}, {k, v, w, u}, {gy});
  });
  return times;
}

void run() {
  if (!torch::cuda::is_available()) {
    fmt::print("skipped: libtorch finds no CUDA device\n");
    return;
  }
  fmt::print("Bi-WKV in libtorch: weft's kernels, and the tree of sums in libtorch's operators\n");
  for (const std::array<std::int64_t, 3>& sizes :
       {std::array<std::int64_t, 3>{1, 16384, 192}, {8, 4096, 192}, {64, 196, 192}, {128, 196, 768}}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const Times kernels = measure(&bi_wkv, sizes, type);
      std::string tree = "out of memory";
      try {
        const Times times = measure(&bi_wkv_tree, sizes, type);
        tree = fmt::format("{:9.1f} us, {:9.1f} us ({:.0f} x, {:.0f} x)", times.forward * 1e6, times.step * 1e6,
                           times.forward / kernels.forward, times.step / kernels.step);
      } catch (const c10::Error&) {  // some hundred f64 numbers for each key
      }
      fmt::print("({:>3},{:>5},{:>3}) {:<8}  kernels: forward {:8.1f} us, forward and backward {:8.1f} us   tree: {}\n",
                 sizes[0], sizes[1], sizes[2], c10::toString(type), kernels.forward * 1e6, kernels.step * 1e6, tree);
    }
  }
}

}  // namespace
}  // namespace weft::torch_engine

int main() {
  try {
    weft::torch_engine::run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
