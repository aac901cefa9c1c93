// What the CPU executor asks of an operator: a kernel, prepared once for fixed shapes and run many times.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/threads.h"
#include "weft/tensor.h"

namespace weft {

/// Weights in the layouts that kernels want, made once and shared by all shapes that a session runs.
class PackCache {
 public:
  /// The packed form `layout` of `source`; made by `pack` at the first call. Safe from several threads.
  Tensor get(const Tensor& source, std::string_view layout, FunctionRef<Tensor()> pack);

 private:
  struct Entry {
    Tensor source;  // keeps the key's address from being reused
    Tensor packed;
  };
  std::mutex mutex_;
  std::map<std::pair<const std::byte*, std::string>, Entry> entries_;
};

/// What is known when a kernel is made.
struct KernelRequest {
  std::span<const TensorType> in;
  std::span<const TensorType> out;
  /// Per input the tensor when it is constant (a weight), else null. Constant tensors outlive the kernel.
  std::span<const Tensor* const> constants;
  /// Threads of the session: a hint for the size of tiles.
  int threads = 1;
  PackCache* packs = nullptr;
  /// What matrix products multiply: kF32, kBF16 or kI8. Inputs and outputs are f32 all the same.
  DType precision = DType::kF32;
};

/// Where a kernel finds its data when it runs.
struct KernelArgs {
  std::span<const std::byte* const> in;
  std::span<std::byte* const> out;
  std::byte* scratch = nullptr;  // scratch_bytes() of them, aligned to 64, contents undefined
  const Workers& workers;

  template <class T = float>
  const T* input(int i) const {
    return reinterpret_cast<const T*>(in[static_cast<std::size_t>(i)]);
  }
  template <class T = float>
  T* output(int i = 0) const {
    return reinterpret_cast<T*>(out[static_cast<std::size_t>(i)]);
  }
};

/// A prepared computation. Everything is checked and allocated when it is made: run() does not throw, allocates nothing
/// (oneDNN books a few small records of its own for each product) and may be called from several threads at once with
/// different arguments. The result does not depend on the number of threads that run it.
class Kernel {
 public:
  virtual ~Kernel() = default;
  /// "onednn:linear", "hwy:bi_wkv", …
  virtual std::string_view name() const = 0;
  virtual std::size_t scratch_bytes() const { return 0; }
  /// Whether output 0 may be written over input `i` (which has as many bytes).
  virtual bool may_overwrite(int /*i*/) const { return false; }
  virtual void run(const KernelArgs& args) const noexcept = 0;
};

}  // namespace weft
