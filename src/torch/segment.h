// Some steps of an executor in a row, with or without what lies between them kept for the backward pass.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <span>
#include <vector>

#include "torch/region.h"

namespace weft::torch_engine {

/// A node, or a region of them.
struct Step {
  const Graph::Node* node = nullptr;     // of a region its first
  std::shared_ptr<const Region> region;  // null: the node's lowering
  std::vector<int> inputs, outputs;      // values
  std::int64_t entries = 0;              // of the batch at once (by_entries.h); 0: all, on libtorch's threads
  std::vector<int> dead;                 // that nobody needs after this step
};

struct Segment {
  const Graph* graph = nullptr;
  std::shared_ptr<const Workers> workers;
  std::vector<Step> steps;
  std::vector<int> inputs, outputs;  // values made before, and values that are needed behind
  bool bf16 = false;
  bool recompute = false;

  /// Outputs from inputs, which it lets go.
  std::vector<at::Tensor> run(std::vector<at::Tensor> in) const;
};

/// run(), which autograd records as one: it keeps the inputs, and the backward pass runs the segment again.
std::vector<at::Tensor> run_recomputing(const std::shared_ptr<const Segment>& segment,
                                        const std::vector<at::Tensor>& in);

}  // namespace weft::torch_engine
