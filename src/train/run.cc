#include "train/run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "api/model_file.h"
#include "core/format.h"
#include "core/options.h"
#include "io/json.h"
#include "io/output_file.h"
#include "train/agreement.h"
#include "train/plan.h"
#include "train/recorder.h"
#include "train/start.h"
#include "train/state.h"
#include "train/task.h"
#include "weft/weft.h"

namespace weft {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

std::string processes_text(int count) { return fmt::format("{} process{}", count, count == 1 ? "" : "es"); }

class Run {
 public:
  Run(TrainConfig config, RunOptions options, const MakeTrainer& make_trainer, RunListener& listener)
      : config_(std::move(config)),
        options_(std::move(options)),
        processes_(options_.processes ? options_.processes : std::make_shared<Alone>()),
        recorder_(options_.out, listener, processes_->rank() == 0) {
    validate(config_);
    task_ = make_task(config_, options_, processes_);
    agree();
    const std::shared_ptr<const Architecture> architecture = task_->start().architecture;
    const auto graph = training_graph(*architecture, task_->input());
    trainer_ = make_trainer(
        {.torch = {.cuda = options_.cuda,
                   .cuda_device = options_.cuda_device,
                   .threads = options_.threads,
                   .fused = true,
                   .bf16 = config_.dtype == TrainDType::kBF16,
                   .recompute = config_.recompute},
         .betas = config_.betas,
         .eps = config_.eps,
         .clip_norm = config_.clip,
         .ema = config_.ema,
         .processes = processes_},
        {.graph = [=](const Shape& input, bool training) { return training_graph(*architecture, input, training); },
         .input = task_->input(),
         .parameters = plan_parameters(*graph, *architecture, config_),
         .weights = task_->start().weights});
    measure_way();
  }

  void restore(const RunState& state) {
    trainer_->restore(state.trainer);
    step_ = state.trainer.steps;
    best_ = state.best;
    loss_sum_ = state.loss_sum;
    logged_ = state.logged;
    loss_ = state.loss;
    task_->seek(step_ * config_.accumulate);
  }

  RunResult operator()() {
    recorder_.open_log();
    const int world = processes_->world();
    recorder_.tell(&RunListener::started, trainer_->description() + (world > 1 ? " in " + processes_text(world) : ""));
    mark_ = Clock::now();
    marked_ = step_;
    const auto enough = [&] { return options_.stop_after > 0 && step_ >= options_.stop_after; };
    bool stopped = enough();
    while (step_ < steps_ && !stopped) {
      try {
        one_step();
      } catch (const IoError&) {  // data that cannot be read: the steps so far are good
        if (processes_->world() == 1) save_state(/*last=*/false);  // of several all would have to
        throw;
      }
      stopped = anybody(recorder_.stop_requested() || enough());
      const bool epoch_ends = epochs_after(step_) > epochs_after(step_ - 1);
      if (epoch_ends) end_epoch();
      const bool state_due = config_.state_every > 0 && step_ % config_.state_every == 0;
      if (epoch_ends || state_due || stopped) save_state(/*last=*/stopped || step_ == steps_);
    }
    return {.finished = step_ == steps_,
            .step = step_,
            .steps = steps_,
            .criterion = task_->criterion().name,
            .best = best_};
  }

 private:
  // Paths may be others on other machines; weights come from rank 0.
  void agree() {
    Json configuration = config_to_json(config_);
    for (const char* const path : {"data", "val", "from", "tokenizer"}) configuration.erase(path);
    Json facts = task_->facts();
    facts.update({{"weft", version()}, {"configuration", configuration}});
    require_agreement(*processes_, facts);
  }

  // Whether any process says so.
  bool anybody(bool own) {
    std::array yes = {own ? 1.0 : 0.0};
    processes_->sum(yes, Pace::kStep, "the others to end the step");
    return yes[0] > 0;
  }

  std::int64_t samples_per_step() const { return task_->samples_per_pass() * processes_->world() * config_.accumulate; }

  void measure_way() {
    task_->seek(0);
    per_epoch_ = task_->passes_per_epoch();
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
    passes.reserve(static_cast<std::size_t>(config_.accumulate));
    for (int i = 0; i < config_.accumulate; ++i) passes.push_back(task_->next());
    const double rate = learning_rate(config_, step_, warmup_, steps_);
    const StepResult result = trainer_->step(passes, rate);
    const std::int64_t epoch = step_ * config_.accumulate / per_epoch_;
    ++step_;
    loss_sum_ += result.loss;
    const double seconds = std::chrono::duration<double>(Clock::now() - mark_).count();
    const auto samples = static_cast<double>((step_ - marked_) * samples_per_step());
    const StepReport report{.step = step_,
                            .steps = steps_,
                            .epoch = epoch,
                            .samples = samples_per_step(),
                            .unit = task_->unit(),
                            .loss = loss_sum_ / static_cast<double>(step_ - logged_),
                            .learning_rate = rate,
                            .gradient_norm = result.gradient_norm,
                            .samples_per_second = seconds > 0 ? samples / seconds : 0};
    recorder_.tell(&RunListener::stepped, report);
    if (step_ % config_.log_every != 0 && step_ != steps_) return;
    loss_ = report.loss;
    recorder_.log({{"step", step_},
                   {"epoch", epoch},
                   {"loss", report.loss},
                   {"lr", rate},
                   {"gradient_norm", result.gradient_norm},
                   {fmt::format("{}_per_second", report.unit), std::round(report.samples_per_second * 10) / 10}});
    loss_sum_ = 0;
    logged_ = step_;
    mark_ = Clock::now();
    marked_ = step_;
  }

  void end_epoch() {
    const Clock::time_point start = Clock::now();
    const std::int64_t epochs = epochs_after(step_);
    Json metrics = {{"steps", step_}, {"epochs", epochs}, {"loss", loss_}};
    const bool at_end = step_ == steps_;
    std::optional<EvalReport> report;
    if (task_->judges() && (due(config_.eval_every) || at_end)) report = judge(metrics);
    const ModelData data = trained_model(task_->start(), config_, trainer_->weights(), metrics);
    const auto write = [&](const std::string& name) {
      return recorder_.file(name, at_end, [&](const fs::path& path) { write_model_file(path, data); });
    };
    write(run_files::kLast);
    // What could not be written is not what the next one has to beat.
    if (report && report->best && write(run_files::kBest)) best_ = deciding(*report);
    if (config_.save_every > 0 && due(config_.save_every)) {
      write(fmt::format("epoch-{:04}.safetensors", epochs));
    }
    mark_ += Clock::now() - start;  // evaluation is no training
  }

  // By the task's criterion.
  double deciding(const EvalReport& report) const {
    const std::string_view name = task_->criterion().name;
    return name == "loss" ? report.loss : report.measure(name);
  }
  bool is_best(double value) const {
    if (!best_) return !std::isnan(value);
    return task_->criterion().higher ? value > *best_ : value < *best_;
  }

  // How good the model is, and whether it is better than any before. Nothing where that cannot be told.
  std::optional<EvalReport> judge(Json& metrics) {
    const Model model(
        std::make_shared<const ModelData>(trained_model(task_->start(), config_, trainer_->weights(), metrics)));
    EvalReport report{.step = step_, .epoch = epochs_after(step_), .unit = task_->unit()};
    try {
      task_->judge(model, *trainer_, report);
    } catch (const IoError& error) {
      if (processes_->world() > 1) throw;  // the others wait for this one
      recorder_.tell(&RunListener::warned, fmt::format("{}; going on without this evaluation", error.what()));
      return std::nullopt;
    }
    report.best = is_best(deciding(report));
    Json line = {{"step", report.step}, {"epoch", report.epoch}, {"val_loss", report.loss}};
    metrics["val_loss"] = report.loss;
    for (const auto& [name, value] : report.measures) {
      line[fmt::format("val_{}", name)] = value;
      metrics[std::string(name)] = value;
    }
    recorder_.log(line);
    recorder_.tell(&RunListener::evaluated, report);
    return report;
  }

  void save_state(bool last) {
    recorder_.file(run_files::kState, last, [&](const fs::path&) {
      write_state(options_.out, {.config = config_,
                                 .trainer = trainer_->state(),
                                 .world = processes_->world(),
                                 .best = best_,
                                 .loss_sum = loss_sum_,
                                 .logged = logged_,
                                 .loss = loss_});
    });
    std::array<double, 1> written{};
    processes_->sum(written, Pace::kOwn, "rank 0 to write its files");
  }

  TrainConfig config_;
  RunOptions options_;
  std::shared_ptr<Processes> processes_;
  Recorder recorder_;
  std::unique_ptr<Task> task_;
  std::shared_ptr<Trainer> trainer_;
  std::int64_t per_epoch_ = 1;  // passes
  std::int64_t steps_ = 0, warmup_ = 0;
  std::int64_t step_ = 0;
  std::optional<double> best_;
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

double EvalReport::measure(std::string_view name) const {
  const auto found = std::ranges::find(measures, name, &std::pair<std::string_view, double>::first);
  return found == measures.end() ? std::numeric_limits<double>::quiet_NaN() : found->second;
}

RunResult train(const TrainConfig& config, const RunOptions& options, const MakeTrainer& make_trainer,
                RunListener& listener) {
  const bool writes = !options.processes || options.processes->rank() == 0;
  std::error_code error;
  if (writes) require_room(options.out);
  Run run(config, options, make_trainer, listener);
  if (!writes) return run();
  fs::create_directories(options.out, error);
  require<IoError>(fs::is_directory(options.out), options.out.string(), "cannot make the folder: {}", error.message());
  OutputFile file(options.out / run_files::kConfig);
  file.write(config_to_json(config).dump(2) + "\n");
  file.commit();
  rewind_log(options.out, 0);
  return run();
}

RunResult resume(const ResumeChanges& changes, const RunOptions& options, const MakeTrainer& make_trainer,
                 RunListener& listener) {
  const auto processes = options.processes ? options.processes : std::make_shared<Alone>();
  const bool writes = processes->rank() == 0;
  RunState state;
  if (writes) state = read_state(options.out);
  const std::string position = processes->share(dump(position_of(state)), "rank 0 to read the state");
  if (!writes) set_position(parse_json(position, "the state of rank 0"), state, "the state of rank 0");
  if (!changes.data.empty()) state.config.data = changes.data;
  if (!changes.val.empty()) state.config.val = changes.val;
  const int batch = std::exchange(state.config.batch, changes.batch > 0 ? changes.batch : state.config.batch);
  const int world = processes->world();
  const std::int64_t samples = std::int64_t{batch} * state.world;
  require<ConfigError>(samples == std::int64_t{state.config.batch} * world, options.out.string(),
                       "the run has {} of batch {}; with {} of batch {} the order of the samples would differ; go on "
                       "with as many{}",
                       processes_text(state.world), batch, processes_text(world), state.config.batch,
                       samples % world == 0 ? fmt::format(", or with --batch {}", samples / world) : "");
  Run run(state.config, options, make_trainer, listener);
  run.restore(state);
  if (writes) rewind_log(options.out, state.trainer.steps);
  return run();
}

}  // namespace weft
