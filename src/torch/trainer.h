// What training needs of libtorch: steps of AdamW on the weights of a graph. Who feeds it, when it is judged and what
// is kept is src/train's business.
//
// As engine.h a border that shows no type of libtorch's.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "torch/engine.h"
#include "torch/processes.h"

namespace weft {

/// How one parameter is trained.
struct TrainedParameter {
  std::string name;
  double lr_scale = 1;  // its learning rate over the step's
  double weight_decay = 0;
  bool frozen = false;  // keeps its value, unless it is a buffer that the graph updates
};

struct TrainerOptions {
  TorchOptions torch;  // dtype: kF32
  /// AdamW: Loshchilov, Hutter 2019, arXiv:1711.05101.
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  /// The gradient is scaled down to this norm over all parameters; 0: as it is.
  double clip_norm = 0;
  /// Share of the running average of the weights that each step keeps, after a start with shares of (1 + t)/(10 + t);
  /// 0: no average.
  double ema = 0;
  /// Those that train together; nothing: this one alone. Gradients are summed in pieces of about so many bytes.
  std::shared_ptr<Processes> processes;
  std::int64_t bucket_bytes = std::int64_t{4} << 20;
};

/// The graph for an input of this shape, its first one: images [B,C,H,W] or tokens [B,T]. Its one output are logits,
/// [B,classes] or [B,T,V]. For training it is Graph::training(), with an input for each branch that may be dropped;
/// else what the trained model is used by.
using TrainingGraph = std::function<std::unique_ptr<Graph>(const Shape& input, bool training)>;

/// One forward and backward pass.
struct TrainingBatch {
  Tensor input;                  // images, f32 [B,C,H,W], or tokens, i64 [B,T]
  Tensor targets;                // f32 as the logits, rows sum to 1; or the right class of each row, i64 [B] or [B,T]
  std::vector<Tensor> branches;  // the graph's further inputs, f32
};

struct StepResult {
  double loss = 0;           // mean cross-entropy over all pictures or tokens of the step, in all processes
  double gradient_norm = 0;  // of that mean, before clipping
};

/// Everything that the next step depends on. By parameter name.
struct TrainerState {
  using Tensors = std::map<std::string, Tensor, std::less<>>;
  std::int64_t steps = 0;
  Tensors weights;  // all parameters
  Tensors first;    // AdamW's moments, of parameters that are not frozen
  Tensors second;
  Tensors average;  // of the weights; empty without one
};

class Trainer {
 public:
  virtual ~Trainer() = default;

  /// "libtorch 1.13.0 on cpu"
  virtual std::string description() const = 0;

  /// One step on the mean loss of these passes, and of as many in each other process: all take the same step. Throws
  /// NumericError, naming the first layer where it happened, when the loss or a gradient is not finite; weights are
  /// then as before. ShapeError for batches that do not fit, MemoryError when memory is short.
  virtual StepResult step(std::span<const TrainingBatch> batches, double learning_rate) = 0;

  /// Logits of an input, as the model is used, by the average where there is one.
  virtual Tensor logits(const Tensor& input) = 0;

  /// The weights to use a model with: the average where there is one.
  virtual TrainerState::Tensors weights() const = 0;
  virtual TrainerState state() const = 0;
  /// Goes on from there; with several processes from the state of rank 0, the others need not have it. Throws
  /// WeightError when it is not of these parameters; everything is then as before.
  virtual void restore(const TrainerState& state) = 0;
};

/// What a trainer begins with.
struct TrainingStart {
  TrainingGraph graph;
  Shape input;                               // of one pass
  std::vector<TrainedParameter> parameters;  // all of the graph's, in its order
  TrainerState::Tensors weights;             // with several processes those of rank 0 are what all begin with
};

/// Throws as load_torch_engine does; WeightError where weights do not fit.
std::shared_ptr<Trainer> load_torch_trainer(const TrainerOptions& options, const TrainingStart& start);

}  // namespace weft

/// As weft_make_torch_engine.
extern "C" weft::Trainer* weft_make_torch_trainer(const char* version, const weft::TrainerOptions& options,
                                                  const weft::TrainingStart& start);
