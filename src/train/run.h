// The training loop.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "torch/trainer.h"
#include "train/config.h"

namespace weft {

/// How a run is carried out. None of this is part of what is computed, but for `threads`, which may change the order of
/// sums.
struct RunOptions {
  std::filesystem::path out;  // the run's folder, made where it is missing
  int threads = 0;            // that compute; 0: one per core
  int workers = 1;            // that prepare pictures; text needs none
  bool cuda = false;
  int cuda_device = 0;  // which of them
  /// Those that carry out the run together; nothing: this one alone. All but rank 0 leave the folder alone.
  std::shared_ptr<Processes> processes;
  std::int64_t stop_after = 0;  // leaves, as if interrupted, once so many steps are done in all; 0: at the end
};

/// A step, told when it is done.
struct StepReport {
  std::int64_t step = 0;  // 1 after the first
  std::int64_t steps = 0;
  std::int64_t epoch = 0;    // 0 during the first
  std::int64_t samples = 0;  // of this step, in all processes
  std::string_view unit;     // what they are: "pictures", "tokens"
  double loss = 0;
  double learning_rate = 0;
  double gradient_norm = 0;
  double samples_per_second = 0;  // over the last steps
};

struct EvalReport {
  std::int64_t step = 0;
  std::int64_t epoch = 0;  // epochs done
  std::int64_t samples = 0;
  std::string_view unit;
  double loss = 0;  // mean cross-entropy of a sample, nats
  /// Of pictures "top1" and "top5", fractions; of text "perplexity" and, where bytes are known, "bits_per_byte".
  std::vector<std::pair<std::string_view, double>> measures;
  bool best = false;

  /// NaN for what was not measured.
  double measure(std::string_view name) const;
};

/// Who watches a run. Of several processes only rank 0 reports.
class RunListener {
 public:
  virtual ~RunListener() = default;
  virtual void started(std::string_view description) = 0;
  virtual void stepped(const StepReport& report) = 0;
  virtual void evaluated(const EvalReport& report) = 0;
  /// Something went wrong that the run survives.
  virtual void warned(std::string_view text) = 0;
  /// Asked after each step: true, in any process, saves the state and leaves.
  virtual bool stop_requested() = 0;
};

struct RunResult {
  bool finished = false;  // false: stopped, to be resumed
  std::int64_t step = 0;
  std::int64_t steps = 0;
  std::string_view criterion;  // what the best model is told by: "top1" of pictures, "loss" of text
  std::optional<double> best;  // none: never evaluated
};

/// load_torch_trainer, or what a test puts in its place.
using MakeTrainer = std::function<std::shared_ptr<Trainer>(const TrainerOptions&, const TrainingStart&)>;

/// Trains from the start into an empty or new folder. A file that cannot be written (a full disk) is warned of and
/// tried again at the next occasion; earlier ones stay. Throws Error: ConfigError, IoError for data or a folder that
/// cannot be used or when the last files cannot be written, NumericError when training diverges; Error when another
/// process was lost.
RunResult train(const TrainConfig& config, const RunOptions& options, const MakeTrainer& make_trainer,
                RunListener& listener);

/// What may be different when a run goes on.
struct ResumeChanges {
  std::string data;  // the data may have moved; empty: where they were
  std::string val;
  int batch = 0;  // in another number of processes, with as many samples a step in all; 0: as it was
};

/// Goes on from the folder's saved state to the same bits as if the run had not been interrupted: the state that rank 0
/// finds. Throws ConfigError where the number of processes and their batch would give another order of the samples.
RunResult resume(const ResumeChanges& changes, const RunOptions& options, const MakeTrainer& make_trainer,
                 RunListener& listener);

}  // namespace weft
