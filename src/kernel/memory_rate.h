// How fast this machine reads memory: what bounds a product of few rows, whose weights are read once for each run.
#pragma once

#include <cstddef>

#include "core/threads.h"
#include "weft/tensor.h"

namespace weft {

class MemoryRate {
 public:
  /// Takes 256 MiB, many times a cache.
  MemoryRate();

  /// Bytes a second that so many threads read together, each a part of its own from beginning to end. The best of
  /// three passes.
  double measure(const Workers& workers) const;

 private:
  Tensor memory_;
};

}  // namespace weft
