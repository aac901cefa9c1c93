// A graph on libtorch's tensors.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <span>
#include <vector>

#include "graph/graph.h"
#include "torch/lowering.h"

namespace weft::torch_engine {

struct Segment;

struct ExecutorOptions {
  /// Device and element type of all that goes in and comes out.
  at::TensorOptions tensor = at::kFloat;
  /// On the CPU in f32: neighbouring operators as one, tile by tile, in weft's own kernels with their own backward
  /// passes (torch/region.h): several times as fast, and keeps less. Elsewhere it says nothing.
  bool fused = false;
  /// In f32: products (linear, patch_embed, attention) of inputs rounded to bf16, with sums and results in f32 where
  /// fused, else rounded to bf16. So are the products of the backward pass.
  bool bf16 = false;
  /// Of each block of the model (nodes whose place begins alike up to its first number, as backbone.layers.3) only what
  /// goes in is kept for the backward pass, which runs it forward again. The same bits, in less memory and more time.
  bool recompute = false;
  /// Threads of weft's own kernels; null: one. Libtorch's operators have their own (at::set_num_threads).
  std::shared_ptr<const Workers> workers;
};

/// A graph made ready for one device and element type. Differentiable: whether libtorch records what happens is decided
/// by the caller (torch::NoGradGuard, requires_grad of what goes in). For the same number of threads the
/// fused parts give the same bits.
class Executor {
 public:
  /// `graph` must outlive this. What no output needs is left out.
  Executor(const Graph& graph, const ExecutorOptions& options);
  ~Executor();

  /// Outputs of the graph from its inputs and parameters, both in order of declaration. Values are let go after their
  /// last use. Throws ShapeError for a tensor of another shape than declared.
  std::vector<at::Tensor> forward(std::span<const at::Tensor> inputs, std::span<const at::Tensor> parameters) const;

 private:
  void add_steps(std::span<const Graph::Node* const> nodes, std::span<const int> uses, const ExecutorOptions& options,
                 Segment& segment) const;
  void bind(std::span<const int> ids, std::span<const at::Tensor> tensors, std::vector<at::Tensor>& values) const;

  const Graph& graph_;
  std::vector<at::Tensor> constants_;  // by id, undefined for what is no constant
  std::vector<std::shared_ptr<const Segment>> segments_;
  std::vector<std::vector<int>> dead_;  // by segment: values that none behind it reads
};

/// Weft's tensor as one of libtorch's: the same memory where the type is right and the device is the CPU. Integers stay
/// integers.
at::Tensor to_torch(const Tensor& tensor, const at::TensorOptions& options);
/// A copy, f32 or f64.
Tensor from_torch(const at::Tensor& tensor);

}  // namespace weft::torch_engine
