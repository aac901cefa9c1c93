// Memory and time of a GPU, for tests and benchmarks.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/format.h"

namespace weft::gpu {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) fail<Error>("gpu", "{}", cudaGetErrorString(error));
}

/// Why there is no GPU to run on; nothing when there is one.
inline std::optional<std::string> missing() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return fmt::format("no GPU: {}", cudaGetErrorString(error));
  if (count == 0) return "no GPU";
  return std::nullopt;
}

/// Bytes on the device, at first all 0xFF, which is NaN.
class Memory {
 public:
  explicit Memory(std::size_t size) : size_(size) {
    if (size == 0) return;
    check(cudaMalloc(&data_, size));
    check(cudaMemset(data_, 0xFF, size));
  }
  explicit Memory(const std::vector<std::byte>& bytes) : Memory(bytes.size()) {
    if (size_ > 0) check(cudaMemcpy(data_, bytes.data(), size_, cudaMemcpyHostToDevice));
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* data() const { return data_; }
  /// Waits for what runs.
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> result(size_);
    check(cudaDeviceSynchronize());
    if (size_ > 0) check(cudaMemcpy(result.data(), data_, size_, cudaMemcpyDeviceToHost));
    return result;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

/// The shortest of several runs, in seconds.
template <class F>
double seconds(cudaStream_t stream, F run) {
  constexpr int kWarmUps = 3, kRepeats = 20;
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  float shortest = 0;
  for (int i = 0; i < kWarmUps + kRepeats; ++i) {
    check(cudaEventRecord(begin, stream));
    run();
    check(cudaEventRecord(end, stream));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i == kWarmUps || (i > kWarmUps && milliseconds < shortest)) shortest = milliseconds;
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return shortest * 1e-3;
}

}  // namespace weft::gpu
