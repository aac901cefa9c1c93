// Programs of blocks as CUDA kernels. Only for .cu files.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "torch/cuda/device.h"
#include "torch/cuda/kernels.h"

namespace weft::cuda {

template <class Program, class P>
__global__ void __launch_bounds__(kLanes* Program::kRows, Program::kResident) run_program(const P p, int blocks_y) {
  __shared__ typename Program::Shared shared;
  const Block<Program::kRows> block;
  for (int y = static_cast<int>(blockIdx.y); y < blocks_y; y += static_cast<int>(gridDim.y)) {
    Program::run(block, p, static_cast<int>(blockIdx.x), y, shared);
  }
}

/// Puts programs on a stream, and remembers the first error. Its device is the thread's one meanwhile.
class Launcher {
 public:
  explicit Launcher(const Queue& queue) : stream_(queue.stream) {
    check(cudaGetDevice(&device_before_));
    if (error_ == cudaSuccess && device_before_ != queue.device) check(cudaSetDevice(queue.device));
  }
  ~Launcher() {
    int device = device_before_;
    if (cudaGetDevice(&device) == cudaSuccess && device != device_before_) cudaSetDevice(device_before_);
  }
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  template <class Program, class P>
  void program(const P& p) {
    constexpr int kLargestGridY = 65535;
    if (error_ != cudaSuccess) return;
    const int x = Program::blocks_x(p), y = Program::blocks_y(p);
    const dim3 grid(static_cast<unsigned>(x), static_cast<unsigned>(std::min(y, kLargestGridY)));
    run_program<Program><<<grid, dim3(kLanes, Program::kRows), 0, stream_>>>(p, y);
    check(cudaGetLastError());
  }

  void clear(void* data, std::size_t bytes) {
    if (error_ == cudaSuccess && bytes > 0) check(cudaMemsetAsync(data, 0, bytes, stream_));
  }

  Error error() const { return error_ == cudaSuccess ? nullptr : cudaGetErrorString(error_); }

 private:
  void check(cudaError_t error) {
    if (error_ == cudaSuccess) error_ = error;
  }

  cudaStream_t stream_;
  int device_before_ = 0;
  cudaError_t error_ = cudaSuccess;
};

/// Calls f(Element()) for the type of this name.
template <class F>
auto with_type(Element type, F f) {
  switch (type) {
    case Element::kF64:
      return f(double());
    case Element::kBF16:
      return f(BFloat16());
    case Element::kF16:
      return f(Half());
    case Element::kF32:
      break;
  }
  return f(float());
}

}  // namespace weft::cuda
