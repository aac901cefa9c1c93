// A graph on libtorch's tensors.
#pragma once

#include <torch/torch.h>

#include <span>
#include <vector>

#include "graph/graph.h"
#include "torch/lowering.h"

namespace weft::torch_engine {

/// A graph made ready for one device and element type. Differentiable: whether libtorch records what happens is decided
/// by the caller (torch::NoGradGuard, requires_grad of what goes in).
class Executor {
 public:
  /// `graph` must outlive this. What no output needs is left out.
  Executor(const Graph& graph, const at::TensorOptions& options);

  /// Outputs of the graph from its inputs and parameters, both in order of declaration. Values are let go after their
  /// last use. Throws ShapeError for a tensor of another shape than declared.
  std::vector<at::Tensor> forward(std::span<const at::Tensor> inputs, std::span<const at::Tensor> parameters) const;

 private:
  struct Step {
    const Graph::Node* node;
    at::Tensor (*lower)(const Operation&, Inputs, const Shape&);
    std::vector<int> dead;  // values that nobody needs after this step
  };

  void bind(std::span<const int> ids, std::span<const at::Tensor> tensors, std::vector<at::Tensor>& values) const;

  const Graph& graph_;
  std::vector<at::Tensor> constants_;  // by id, undefined for what is no constant
  std::vector<Step> steps_;
};

/// Weft's tensor as one of libtorch's: the same memory where the type is right and the device is the CPU.
at::Tensor to_torch(const Tensor& tensor, const at::TensorOptions& options);
/// A copy, f32 or f64.
Tensor from_torch(const at::Tensor& tensor);

}  // namespace weft::torch_engine
