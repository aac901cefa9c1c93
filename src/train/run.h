// The training loop.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

#include "torch/trainer.h"
#include "train/config.h"

namespace weft {

/// How a run is carried out. None of this is part of what is computed, but for `threads`, which may change the order of
/// sums.
struct RunOptions {
  std::filesystem::path out;  // the run's folder, made where it is missing
  int threads = 0;            // that compute; 0: one per core
  int workers = 1;            // that prepare pictures
  bool cuda = false;
  std::int64_t stop_after = 0;  // leaves, as if interrupted, once so many steps are done in all; 0: at the end
};

/// A step, told when it is done.
struct StepReport {
  std::int64_t step = 0;  // 1 after the first
  std::int64_t steps = 0;
  std::int64_t epoch = 0;  // 0 during the first
  double loss = 0;
  double learning_rate = 0;
  double gradient_norm = 0;
  double pictures_per_second = 0;  // over the last steps
};

struct EvalReport {
  std::int64_t step = 0;
  std::int64_t epoch = 0;  // epochs done
  std::int64_t pictures = 0;
  double loss = 0;
  double top1 = 0;  // fractions
  double top5 = 0;
  bool best = false;
};

/// Who watches a run.
class RunListener {
 public:
  virtual ~RunListener() = default;
  virtual void started(std::string_view description) = 0;
  virtual void stepped(const StepReport& report) = 0;
  virtual void evaluated(const EvalReport& report) = 0;
  /// Something went wrong that the run survives.
  virtual void warned(std::string_view text) = 0;
  /// Asked after each step: true saves the state and leaves.
  virtual bool stop_requested() = 0;
};

struct RunResult {
  bool finished = false;  // false: stopped, to be resumed
  std::int64_t step = 0;
  std::int64_t steps = 0;
  double best_top1 = -1;  // −1: never evaluated
};

/// load_torch_trainer, or what a test puts in its place.
using MakeTrainer = std::function<std::shared_ptr<Trainer>(const TrainerOptions&, const TrainingStart&)>;

/// Trains from the start into an empty or new folder. A file that cannot be written (a full disk) is warned of and
/// tried again at the next occasion; earlier ones stay. Throws Error: ConfigError, IoError for data or a folder that
/// cannot be used or when the last files cannot be written, NumericError when training diverges.
RunResult train(const TrainConfig& config, const RunOptions& options, const MakeTrainer& make_trainer,
                RunListener& listener);

/// Goes on from the folder's saved state to the same bits as if the run had not been interrupted. `data` and `val` win
/// over the saved paths where they are not empty: the data may have moved.
RunResult resume(const std::string& data, const std::string& val, const RunOptions& options,
                 const MakeTrainer& make_trainer, RunListener& listener);

}  // namespace weft
