// Tensors that processes give each other.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <string_view>

#include "torch/processes.h"

namespace weft::torch_engine {

/// What processes are within this library.
class Exchange : public Processes {
 public:
  /// Waits for what was begun.
  using Wait = std::function<void()>;

  /// Begins to replace the elements by their sums over all processes. The tensor must be contiguous, and be left alone
  /// until the wait is over. The same bits in all processes.
  virtual Wait begin_sum(const at::Tensor& tensor, std::string_view what) = 0;
  /// Replaces the elements by those of rank 0.
  virtual void copy_from_first(const at::Tensor& tensor, std::string_view what) = 0;
};

}  // namespace weft::torch_engine
