// libtorch's operators on weft's threads.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <vector>

#include "core/threads.h"
#include "torch/lowering.h"

namespace weft::torch_engine {

/// An operator that treats entries of the batch, the first axis of all its operands, alike, and what it runs on. It is
/// called for some entries at once, on several threads, and must not depend on how many there are.
struct ByEntries {
  std::function<at::Tensor(Inputs)> run;
  Shape out;                 // of the whole batch
  std::int64_t entries = 1;  // at once
  std::shared_ptr<const Workers> workers;
};

/// The operator's result for the whole batch. Nothing but the inputs is kept for the backward pass, which runs it
/// again; can be differentiated once. The same bits for any number of threads.
at::Tensor run_by_entries(ByEntries by_entries, const std::vector<at::Tensor>& inputs);

}  // namespace weft::torch_engine
