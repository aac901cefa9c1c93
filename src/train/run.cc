#include "train/run.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <utility>

#include "api/model_file.h"
#include "core/format.h"
#include "core/options.h"
#include "data/loader.h"
#include "io/json.h"
#include "io/output_file.h"
#include "train/agreement.h"
#include "train/plan.h"
#include "train/recorder.h"
#include "train/start.h"
#include "train/state.h"
#include "weft/weft.h"

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
  // Over all processes, each of which has seen its part.
  void fill(EvalReport& report, Processes& processes) const {
    std::array sums = {static_cast<double>(pictures_), loss_, static_cast<double>(top1_), static_cast<double>(top5_)};
    processes.sum(sums, Pace::kOwn, "the others to judge the model on their pictures");
    const double count = std::max(sums[0], 1.0);
    report.pictures = static_cast<std::int64_t>(sums[0]);
    report.loss = sums[1] / count;
    report.top1 = sums[2] / count;
    report.top5 = sums[3] / count;
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

// FNV-1a of the classes of all pictures, in their order.
std::uint64_t fingerprint(const Dataset& data) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    hash = (hash ^ static_cast<std::uint64_t>(data.label(i))) * 0x100000001b3;
  }
  return hash;
}

Json facts_of(const Dataset& data) {
  return {{"pictures", data.size()}, {"classes", data.class_names()}, {"labels", fingerprint(data)}};
}

std::string processes_text(int count) { return fmt::format("{} process{}", count, count == 1 ? "" : "es"); }

class Run {
 public:
  Run(TrainConfig config, RunOptions options, const MakeTrainer& make_trainer, RunListener& listener)
      : config_(std::move(config)),
        options_(std::move(options)),
        processes_(options_.processes ? options_.processes : std::make_shared<Alone>()),
        recorder_(options_.out, listener, processes_->rank() == 0) {
    validate(config_);
    data_ = open_dataset(config_.data, Split::kTrain);
    if (!config_.val.empty()) val_ = open_dataset(config_.val, Split::kTest);
    if (val_) check_classes();
    model_ = starting_model(config_, *data_);
    agree();
    const PictureArchitecture& architecture = require_pictures(*model_.architecture);
    const Shape images = {config_.batch, architecture.in_channels(), model_.preprocess.crop, model_.preprocess.crop};
    graph_ = training_graph(architecture, images);
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
        {.graph = [own = model_.architecture](
                      const Shape& shape, bool training) { return training_graph(*own, shape, training); },
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
      } catch (const IoError&) {  // a picture that cannot be read: the steps so far are good
        if (processes_->world() == 1) save_state(/*last=*/false);  // of several all would have to
        throw;
      }
      stopped = anybody(recorder_.stop_requested() || enough());
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
            .rank = processes_->rank(),
            .world = processes_->world(),
            .workers = options_.workers,
            .prefetch = std::min(1 + config_.accumulate, 32)};  // a step's, while the one before is computed
  }

  // Paths may be others on other machines; weights come from rank 0.
  void agree() {
    Json configuration = config_to_json(config_);
    for (const char* const path : {"data", "val", "from"}) configuration.erase(path);
    Json facts = {{"weft", version()}, {"configuration", configuration}, {"data", facts_of(*data_)}};
    if (val_) facts["val"] = facts_of(*val_);
    require_agreement(*processes_, facts);
  }

  // Whether any process says so.
  bool anybody(bool own) {
    std::array yes = {own ? 1.0 : 0.0};
    processes_->sum(yes, Pace::kStep, "the others to end the step");
    return yes[0] > 0;
  }

  std::int64_t pictures_per_step() const {
    return std::int64_t{config_.batch} * processes_->world() * config_.accumulate;
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
      passes.push_back(
          {.images = std::move(batch.images),
           .targets = std::move(batch.targets),
           .branches = draw_branches(*graph_, config_.drop_path, config_.seed, batch.epoch,
                                     (batch.step * processes_->world() + processes_->rank()) * config_.batch)});
    }
    const double rate = learning_rate(config_, step_, warmup_, steps_);
    const StepResult result = trainer_->step(passes, rate);
    const std::int64_t epoch = step_ * config_.accumulate / per_epoch_;
    ++step_;
    loss_sum_ += result.loss;
    const double seconds = std::chrono::duration<double>(Clock::now() - mark_).count();
    const auto pictures = static_cast<double>((step_ - marked_) * pictures_per_step());
    const StepReport report{.step = step_,
                            .steps = steps_,
                            .epoch = epoch,
                            .pictures = pictures_per_step(),
                            .loss = loss_sum_ / static_cast<double>(step_ - logged_),
                            .learning_rate = rate,
                            .gradient_norm = result.gradient_norm,
                            .pictures_per_second = seconds > 0 ? pictures / seconds : 0};
    recorder_.tell(&RunListener::stepped, report);
    if (step_ % config_.log_every != 0 && step_ != steps_) return;
    loss_ = report.loss;
    recorder_.log({{"step", step_},
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
    const bool at_end = step_ == steps_;
    const bool best = val_ && (due(config_.eval_every) || at_end) && judge(metrics);
    const ModelData data = trained_model(model_, config_, trainer_->weights(), metrics);
    const auto write = [&](const std::string& name) {
      return recorder_.file(name, at_end, [&](const fs::path& path) { write_model_file(path, data); });
    };
    write(run_files::kLast);
    // What could not be written is not what the next one has to beat.
    if (best && write(run_files::kBest)) best_top1_ = metrics.top1;
    if (config_.save_every > 0 && due(config_.save_every)) {
      write(fmt::format("epoch-{:04}.safetensors", epochs));
    }
    mark_ += Clock::now() - start;  // evaluation is no training
  }

  // Fills in how right the model is, and whether it is more so than any before.
  bool judge(TrainingMetrics& metrics) {
    const Model model(std::make_shared<const ModelData>(trained_model(model_, config_, trainer_->weights(), metrics)));
    EvalReport report{.step = metrics.steps, .epoch = metrics.epochs};
    try {
      evaluate(model, report);
    } catch (const IoError& error) {
      if (processes_->world() > 1) throw;  // the others wait for this one
      recorder_.tell(&RunListener::warned, fmt::format("{}; going on without this evaluation", error.what()));
      return false;
    }
    report.best = report.top1 > best_top1_;
    metrics.top1 = report.top1;
    metrics.top5 = report.top5;
    recorder_.log({{"step", report.step},
                   {"epoch", report.epoch},
                   {"val_loss", report.loss},
                   {"val_top1", report.top1},
                   {"val_top5", report.top5}});
    recorder_.tell(&RunListener::evaluated, report);
    return report.best;
  }

  // On the CPU by the engine that models are used with, on a GPU by libtorch.
  void evaluate(const Model& model, EvalReport& report) {
    EvalLoader pictures(val_, {.preprocess = model_.preprocess,
                               .batch = config_.batch,
                               .rank = processes_->rank(),
                               .world = processes_->world(),
                               .workers = options_.workers});
    std::optional<Session> session;
    if (!options_.cuda) session.emplace(model, SessionOptions{.threads = options_.threads});
    Score score;
    while (const std::optional<EvalBatch> batch = pictures.next()) {
      score.add(session ? session->logits(batch->images) : trainer_->logits(batch->images), batch->labels);
    }
    score.fill(report, *processes_);
  }

  void save_state(bool last) {
    recorder_.file(run_files::kState, last, [&](const fs::path&) {
      write_state(options_.out, {.config = config_,
                                 .trainer = trainer_->state(),
                                 .world = processes_->world(),
                                 .best_top1 = best_top1_,
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
  std::shared_ptr<const Dataset> data_, val_;
  ModelData model_;
  std::unique_ptr<Graph> graph_;  // for its names and shapes
  std::shared_ptr<Trainer> trainer_;
  std::optional<Loader> loader_;
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
  const std::int64_t pictures = std::int64_t{batch} * state.world;
  require<ConfigError>(pictures == std::int64_t{state.config.batch} * world, options.out.string(),
                       "the run has {} of batch {}; with {} of batch {} the order of the pictures would differ; go on "
                       "with as many{}",
                       processes_text(state.world), batch, processes_text(world), state.config.batch,
                       pictures % world == 0 ? fmt::format(", or with --batch {}", pictures / world) : "");
  Run run(state.config, options, make_trainer, listener);
  run.restore(state);
  if (writes) rewind_log(options.out, state.trainer.steps);
  return run();
}

}  // namespace weft
