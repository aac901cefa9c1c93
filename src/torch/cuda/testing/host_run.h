// Programs of blocks, run on the CPU: thread by thread, each access within bounds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "torch/cuda/device.h"
#include "torch/cuda/kernels.h"
#include "torch/cuda/scratch.h"

namespace weft::cuda::testing {

/// What Launcher is on a GPU.
struct HostRun {
  bool backwards = false;  // the order of blocks and threads, which must not matter

  template <class Program, class P>
  void program(const P& p) const {
    const Block<Program::kRows> block{.backwards = backwards};
    const int blocks_x = Program::blocks_x(p), count = blocks_x * Program::blocks_y(p);
    for (int i = 0; i < count; ++i) {
      const int at = backwards ? count - 1 - i : i;
      const auto shared = std::make_unique<typename Program::Shared>();
      std::memset(static_cast<void*>(shared.get()), 0xFF, sizeof(*shared));  // NaN
      Program::run(block, p, at % blocks_x, at / blocks_x, *shared);
    }
  }
};

inline std::vector<std::byte> nan_bytes(std::size_t size) { return std::vector<std::byte>(size, std::byte{0xFF}); }

/// Scratch memory full of NaN; make(Scratch&) is called twice, as count and as use.
template <class Make>
auto with_scratch(Make make, std::vector<std::byte>& memory) {
  constexpr std::size_t kAlignment = 256;
  Scratch count(nullptr);
  make(count);
  memory = nan_bytes(count.bytes() + kAlignment);
  void* aligned = memory.data();
  std::size_t space = memory.size();
  Scratch scratch(std::align(kAlignment, count.bytes(), aligned, space));
  return make(scratch);
}

/// Calls f(E()) for the type of this name.
template <class F>
auto with_host_type(Element type, F f) {
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

}  // namespace weft::cuda::testing
