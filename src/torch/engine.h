// The second executor: a graph run, and differentiated, by libtorch, on the CPU or a CUDA device.
//
// An optional component in a library of its own, libweft_torch, which is loaded when it is asked for and not before:
// libtorch takes some 0.3 s to load, and official builds of it bring their own oneDNN and BLAS. What crosses the border
// is in this header, and has no type of libtorch's.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft {

struct TorchOptions {
  /// What everything is computed in: kF32 or kF64.
  DType dtype = DType::kF32;
  bool cuda = false;
  int cuda_device = 0;  // which of them
  /// CPU threads; 0: one per core. Libtorch has its own, for the whole process: as many, or one where `fused`.
  int threads = 0;
  /// See ExecutorOptions (torch/executor.h): in f32 on the CPU, weft's own kernels for whole parts of the graph;
  bool fused = false;
  /// in f32, products of numbers rounded to bf16;
  bool bf16 = false;
  /// blocks of the model run again in the backward pass.
  bool recompute = false;
};

struct TorchGradients {
  std::vector<Tensor> outputs;  // what run() returns
  std::vector<Tensor> inputs;   // of every input, in the graph's order; zeros of whole numbers
  std::map<std::string, Tensor, std::less<>> parameters;  // but buffers; zeros where no output depends on it
};

class TorchEngine {
 public:
  virtual ~TorchEngine() = default;

  /// "libtorch 1.13.0 on cpu"
  virtual std::string description() const = 0;

  /// Outputs of the graph, in their order and in the engine's element type; each intermediate result is freed after its
  /// last use. `inputs` and `weights` may have any floating type. Throws WeightError for a parameter without weights,
  /// ShapeError for a tensor of another shape than declared, MemoryError when a device has too little, Error for
  /// whatever else libtorch refuses.
  virtual std::vector<Tensor> run(const Graph& graph, const std::map<std::string, Tensor, std::less<>>& weights,
                                  std::span<const Tensor> inputs) = 0;

  /// The same with gradients of Σ over outputs of sum(output · cotangent). One cotangent for each output.
  virtual TorchGradients differentiate(const Graph& graph, const std::map<std::string, Tensor, std::less<>>& weights,
                                       std::span<const Tensor> inputs, std::span<const Tensor> cotangents) = 0;
};

/// Loads libweft_torch, once per process. Throws UnsupportedError, with the remedy, where this build has none, where it
/// cannot be loaded, or where a CUDA device is asked for and there is none; ConfigError for another element type.
std::shared_ptr<TorchEngine> load_torch_engine(const TorchOptions& options = {});

}  // namespace weft

/// What libweft_torch exports. `version` is that of the caller, which must be the library's: they share the types
/// above.
extern "C" weft::TorchEngine* weft_make_torch_engine(const char* version, const weft::TorchOptions& options);
