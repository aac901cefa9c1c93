// One piece of memory for many arrays.
#pragma once

#include <cstddef>

#include "torch/cuda/device.h"

namespace weft::cuda {

/// Hands out the parts of a scratch memory; of none it counts the bytes.
class Scratch {
 public:
  explicit Scratch(void* memory) : memory_(static_cast<std::byte*>(memory)) {}

  template <class T>
  Buffer<T> take(std::int64_t size) {
    T* const data = memory_ ? reinterpret_cast<T*>(memory_ + bytes_) : nullptr;
    bytes_ += ceil_div<std::size_t>(static_cast<std::size_t>(size) * sizeof(T), kAlignment) * kAlignment;
    return {data, size};
  }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kAlignment = 256;
  std::byte* memory_;
  std::size_t bytes_ = 0;
};

}  // namespace weft::cuda
