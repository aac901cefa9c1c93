// What a training run is about. The loop (run.cc) knows steps, epochs, files and processes; a task knows the data, the
// model that is trained on them, and how that is judged.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "api/model_data.h"
#include "core/json.h"
#include "torch/trainer.h"
#include "train/config.h"
#include "train/run.h"

namespace weft {

/// By which number of an evaluation the best model is told.
struct Criterion {
  std::string_view name;
  bool higher = true;  // is better
};

class Task {
 public:
  virtual ~Task() = default;

  /// Where the run starts.
  virtual const ModelData& start() const = 0;
  /// What all processes must have in common beside the configuration.
  virtual Json facts() const = 0;

  /// Of one pass in one process.
  virtual Shape input() const = 0;
  virtual std::int64_t samples_per_pass() const = 0;
  /// What samples are called: "pictures".
  virtual std::string_view unit() const = 0;

  /// Makes pass number `pass` of the whole run what next() gives next. Called once processes agree, before what stands
  /// below. Throws ConfigError for data that do not fill a pass.
  virtual void seek(std::int64_t pass) = 0;
  virtual std::int64_t passes_per_epoch() const = 0;
  /// Throws IoError for data that cannot be read.
  virtual TrainingBatch next() = 0;

  /// Whether there is anything to judge by.
  virtual bool judges() const = 0;
  virtual Criterion criterion() const = 0;
  /// Fills in the loss, what else is measured, and of how many samples: of all processes, each of which judges its
  /// part. By `trainer` on a GPU, else by the engine that models are used with. Throws IoError.
  virtual void judge(const Model& model, Trainer& trainer, EvalReport& report) const = 0;
};

/// The task of the configuration's model, for this process. Throws ConfigError, IoError and WeightError for a model or
/// data that cannot be used, and for keys of the configuration that make no sense for it.
std::unique_ptr<Task> make_task(const TrainConfig& config, const RunOptions& options,
                                std::shared_ptr<Processes> processes);

}  // namespace weft
