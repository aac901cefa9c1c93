#include "train/run.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <optional>

#include "api/model_file.h"
#include "core/format.h"
#include "core/options.h"
#include "data/loader.h"
#include "io/output_file.h"
#include "train/plan.h"
#include "train/start.h"
#include "train/state.h"
#include "weft/model.h"

namespace weft {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

// How right and how sure a model is on pictures that it has not learned from.
class Score {
 public:
  void add(const Tensor& logits, std::span<const int> labels) {
    const auto classes = static_cast<std::size_t>(logits.shape()[1]);
    for (std::size_t b = 0; b < labels.size(); ++b) {
      const auto row = logits.data<float>().subspan(b * classes, classes);
      const auto own = static_cast<std::size_t>(labels[b]);
      const double most = *std::ranges::max_element(row);
      double sum = 0;
      for (const float x : row) sum += std::exp(x - most);
      loss_ += std::log(sum) + most - row[own];
      const std::size_t place = place_of(row, own);
      top1_ += place < 1 ? 1 : 0;
      top5_ += place < 5 ? 1 : 0;
      ++pictures_;
    }
  }
  void fill(EvalReport& report) const {
    const auto count = static_cast<double>(std::max<std::int64_t>(pictures_, 1));
    report.pictures = pictures_;
    report.loss = loss_ / count;
    report.top1 = static_cast<double>(top1_) / count;
    report.top5 = static_cast<double>(top5_) / count;
  }

 private:
  // Where a class stands among all. Of equals the first is before the others, as in `weft eval`; a logit that is NaN
  // says nothing for its class.
  static std::size_t place_of(std::span<const float> logits, std::size_t own) {
    if (std::isnan(logits[own])) return logits.size() + 5;
    std::size_t before = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      before += logits[i] > logits[own] || (logits[i] == logits[own] && i < own) ? 1 : 0;
    }
    return before;
  }

  std::int64_t pictures_ = 0, top1_ = 0, top5_ = 0;
  double loss_ = 0;
};

class Run {
 public:
  Run(TrainConfig config, RunOptions options, const MakeTrainer& make_trainer, RunListener& listener)
      : config_(std::move(config)), options_(std::move(options)), listener_(listener) {
    validate(config_);
    data_ = open_dataset(config_.data, Split::kTrain);
    if (!config_.val.empty()) val_ = open_dataset(config_.val, Split::kTest);
    if (val_) check_classes();
    model_ = starting_model(config_, *data_);
    const Shape images = {config_.batch, model_.architecture->in_channels(), model_.preprocess.crop,
                          model_.preprocess.crop};
    graph_ = training_graph(*model_.architecture, images);
    trainer_ = make_trainer({.torch = {.cuda = options_.cuda,
                                       .threads = options_.threads,
                                       .fused = true,
                                       .bf16 = config_.dtype == TrainDType::kBF16,
                                       .recompute = config_.recompute},
                             .betas = config_.betas,
                             .eps = config_.eps,
                             .clip_norm = config_.clip,
                             .ema = config_.ema},
                            {.graph = [architecture = model_.architecture](
                                          const Shape& shape) { return training_graph(*architecture, shape); },
                             .images = images,
                             .parameters = plan_parameters(*graph_, *model_.architecture, config_),
                             .weights = model_.weights});
    open_loader();
  }

  void restore(const RunState& state) {
    trainer_->restore(state.trainer);
    step_ = state.trainer.steps;
    best_top1_ = state.best_top1;
    loss_sum_ = state.loss_sum;
    logged_ = state.logged;
    loss_ = state.loss;
    open_loader();
  }

  RunResult operator()() {
    log_.open(options_.out / run_files::kLog, std::ios::app);
    require<IoError>(log_.is_open(), (options_.out / run_files::kLog).string(), "cannot write the log");
    listener_.started(trainer_->description());
    mark_ = Clock::now();
    marked_ = step_;
    const auto enough = [&] { return options_.stop_after > 0 && step_ >= options_.stop_after; };
    bool stopped = enough();
    while (step_ < steps_ && !stopped) {
      try {
        one_step();
      } catch (const IoError&) {  // a picture that cannot be read: the steps so far are good
        save_state(/*last=*/false);
        throw;
      }
      stopped = listener_.stop_requested() || enough();
      const bool epoch_ends = epochs_after(step_) > epochs_after(step_ - 1);
      if (epoch_ends) end_epoch();
      const bool state_due = config_.state_every > 0 && step_ % config_.state_every == 0;
      if (epoch_ends || state_due || stopped) save_state(/*last=*/stopped || step_ == steps_);
    }
    return {.finished = step_ == steps_, .step = step_, .steps = steps_, .best_top1 = best_top1_};
  }

 private:
  // A file of numbers may lack the last classes.
  void check_classes() const {
    const std::vector<std::string>& all = data_->class_names();
    const std::vector<std::string>& some = val_->class_names();
    const bool fits = some.size() <= all.size() && std::equal(some.begin(), some.end(), all.begin());
    require<ConfigError>(fits, "train", "the classes of {} ({}) are not those of {} ({})", config_.val,
                         printable(fmt::format("{}", fmt::join(some, ", ")), 80), config_.data,
                         printable(fmt::format("{}", fmt::join(all, ", ")), 80));
  }

  LoaderOptions loader_options() const {
    return {.preprocess = model_.preprocess,
            .augment = config_.augment,
            .seed = config_.seed,
            .batch = config_.batch,
            .workers = options_.workers,
            .prefetch = std::min(1 + config_.accumulate, 32)};  // a step's, while the one before is computed
  }

  void open_loader() {
    const std::int64_t passes = step_ * config_.accumulate;
    loader_.emplace(data_, loader_options());
    per_epoch_ = loader_->steps_per_epoch();
    if (passes > 0) loader_.emplace(data_, loader_options(), passes / per_epoch_, passes % per_epoch_);
    steps_ = config_.epochs * per_epoch_ / config_.accumulate;
    require<ConfigError>(steps_ > 0, "train", "{} epochs of {} passes do not fill one step of {}; lower accumulate",
                         config_.epochs, per_epoch_, config_.accumulate);
    const double warmup = config_.warmup_epochs * static_cast<double>(per_epoch_) / config_.accumulate;
    warmup_ = std::min(static_cast<std::int64_t>(std::llround(warmup)), steps_);
  }

  // Whole epochs within so many steps. The last passes of a run may not fill a step: its last epoch ends with its last
  // step nevertheless.
  std::int64_t epochs_after(std::int64_t step) const {
    return step == steps_ ? config_.epochs : step * config_.accumulate / per_epoch_;
  }
  // Whether the step just done ends an epoch whose number `every` divides; a step of many passes may end several.
  bool due(int every) const { return epochs_after(step_) / every > epochs_after(step_ - 1) / every; }

  void one_step() {
    std::vector<TrainingBatch> passes;
    for (int i = 0; i < config_.accumulate; ++i) {
      TrainBatch batch = loader_->next();
      passes.push_back({.images = std::move(batch.images),
                        .targets = std::move(batch.targets),
                        .branches = draw_branches(*graph_, *model_.architecture, config_.drop_path, config_.seed,
                                                  batch.epoch, batch.step * config_.batch)});
    }
    const double rate = learning_rate(config_, step_, warmup_, steps_);
    const StepResult result = trainer_->step(passes, rate);
    const std::int64_t epoch = step_ * config_.accumulate / per_epoch_;
    ++step_;
    loss_sum_ += result.loss;
    const double seconds = std::chrono::duration<double>(Clock::now() - mark_).count();
    const auto pictures = static_cast<double>((step_ - marked_) * config_.accumulate * config_.batch);
    const StepReport report{.step = step_,
                            .steps = steps_,
                            .epoch = epoch,
                            .loss = loss_sum_ / static_cast<double>(step_ - logged_),
                            .learning_rate = rate,
                            .gradient_norm = result.gradient_norm,
                            .pictures_per_second = seconds > 0 ? pictures / seconds : 0};
    listener_.stepped(report);
    if (step_ % config_.log_every != 0 && step_ != steps_) return;
    loss_ = report.loss;
    write_log({{"step", step_},
               {"epoch", epoch},
               {"loss", report.loss},
               {"lr", rate},
               {"gradient_norm", result.gradient_norm},
               {"pictures_per_second", std::round(report.pictures_per_second * 10) / 10}});
    loss_sum_ = 0;
    logged_ = step_;
    mark_ = Clock::now();
    marked_ = step_;
  }

  void end_epoch() {
    const Clock::time_point start = Clock::now();
    const std::int64_t epochs = epochs_after(step_);
    TrainingMetrics metrics{.steps = step_, .epochs = epochs, .loss = loss_, .top1 = -1, .top5 = -1};
    const Model model(std::make_shared<const ModelData>(trained_model(model_, config_, trainer_->weights(), metrics)));
    bool best = false;
    const bool at_end = step_ == steps_;
    if (val_ && (due(config_.eval_every) || at_end)) {
      EvalReport report{.step = step_, .epoch = epochs};
      evaluate(model, report);
      best = report.best = report.top1 > best_top1_;
      metrics.top1 = report.top1;
      metrics.top5 = report.top5;
      write_log({{"step", step_},
                 {"epoch", epochs},
                 {"val_loss", report.loss},
                 {"val_top1", report.top1},
                 {"val_top5", report.top5}});
      listener_.evaluated(report);
    }
    const ModelData data = trained_model(model_, config_, trainer_->weights(), metrics);
    const auto write = [&](const std::string& name) { write_model_file(options_.out / name, data); };
    guarded(at_end, [&] { write(run_files::kLast); });
    if (best) {
      guarded(at_end, [&] {
        write(run_files::kBest);
        best_top1_ = metrics.top1;  // what could not be written is not what the next one has to beat
      });
    }
    if (config_.save_every > 0 && due(config_.save_every)) {
      guarded(at_end, [&] { write(fmt::format("epoch-{:04}.safetensors", epochs)); });
    }
    mark_ += Clock::now() - start;  // evaluation is no training
  }

  // On the CPU by the engine that models are used with, on a GPU by libtorch.
  void evaluate(const Model& model, EvalReport& report) {
    EvalLoader pictures(val_, {.preprocess = model_.preprocess, .batch = config_.batch, .workers = options_.workers});
    std::optional<Session> session;
    if (!options_.cuda) session.emplace(model, SessionOptions{.threads = options_.threads});
    Score score;
    while (const std::optional<EvalBatch> batch = pictures.next()) {
      score.add(session ? session->logits(batch->images) : trainer_->logits(batch->images), batch->labels);
    }
    score.fill(report);
  }

  void save_state(bool last) {
    guarded(last, [&] {
      write_state(options_.out, {.config = config_,
                                 .trainer = trainer_->state(),
                                 .best_top1 = best_top1_,
                                 .loss_sum = loss_sum_,
                                 .logged = logged_,
                                 .loss = loss_});
    });
  }

  void write_log(const Json& line) {
    log_ << dump(line) << std::endl;
    if (log_) return;
    // What is left of the line shall not stand before the next one.
    log_ = std::ofstream(options_.out / run_files::kLog, std::ios::app);
    log_ << "\n";
    listener_.warned(fmt::format("{}: a line of the log could not be written", run_files::kLog));
  }

  // What cannot be written now may be later; at the end there is no later.
  template <class F>
  void guarded(bool last, F&& write) {
    try {
      write();
    } catch (const IoError& error) {
      if (last) throw;
      listener_.warned(fmt::format("{}; going on, the next state will be tried again", error.what()));
    }
  }

  TrainConfig config_;
  RunOptions options_;
  RunListener& listener_;
  std::shared_ptr<const Dataset> data_, val_;
  ModelData model_;
  std::unique_ptr<Graph> graph_;  // for its names and shapes
  std::shared_ptr<Trainer> trainer_;
  std::optional<Loader> loader_;
  std::ofstream log_;
  std::int64_t per_epoch_ = 1;  // passes
  std::int64_t steps_ = 0, warmup_ = 0;
  std::int64_t step_ = 0;
  double best_top1_ = -1;
  double loss_sum_ = 0;  // of the steps behind `logged_`
  std::int64_t logged_ = 0;
  double loss_ = 0;         // of the last line
  Clock::time_point mark_;  // when step `marked_` was done
  std::int64_t marked_ = 0;
};

// Nothing that was trained, nor a stranger's file, shall be written over. A run that ended before it saved anything may
// begin anew.
void require_room(const fs::path& folder) {
  std::error_code error;
  for (const char* const name : {run_files::kState, run_files::kLast, run_files::kBest}) {
    require<ConfigError>(!fs::is_regular_file(folder / name, error), folder.string(),
                         "holds a training run already ({}); go on with it (--resume) or take another folder", name);
  }
  require<ConfigError>(!fs::exists(folder / run_files::kConfig, error) || fs::exists(folder / run_files::kLog, error),
                       folder.string(), "holds a {} that is of no training run; take another folder",
                       run_files::kConfig);
}

}  // namespace

RunResult train(const TrainConfig& config, const RunOptions& options, const MakeTrainer& make_trainer,
                RunListener& listener) {
  std::error_code error;
  require_room(options.out);
  Run run(config, options, make_trainer, listener);
  fs::create_directories(options.out, error);
  require<IoError>(fs::is_directory(options.out), options.out.string(), "cannot make the folder: {}", error.message());
  OutputFile file(options.out / run_files::kConfig);
  file.write(config_to_json(config).dump(2) + "\n");
  file.commit();
  rewind_log(options.out, 0);
  return run();
}

RunResult resume(const std::string& data, const std::string& val, const RunOptions& options,
                 const MakeTrainer& make_trainer, RunListener& listener) {
  RunState state = read_state(options.out);
  if (!data.empty()) state.config.data = data;
  if (!val.empty()) state.config.val = val;
  Run run(state.config, options, make_trainer, listener);
  run.restore(state);
  rewind_log(options.out, state.trainer.steps);
  return run();
}

}  // namespace weft
