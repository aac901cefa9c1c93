#include "train/picture_task.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/format.h"
#include "core/hash.h"
#include "data/loader.h"
#include "train/cross_entropy.h"
#include "train/plan.h"
#include "train/start.h"
#include "weft/model.h"

namespace weft {
namespace {

// How right and how sure a model is on pictures that it has not learned from.
class PictureScore {
 public:
  void add(const Tensor& logits, std::span<const int> labels) {
    const auto classes = static_cast<std::size_t>(logits.shape()[1]);
    for (std::size_t b = 0; b < labels.size(); ++b) {
      const auto row = logits.data<float>().subspan(b * classes, classes);
      const auto own = static_cast<std::size_t>(labels[b]);
      loss_ += cross_entropy(row, own);
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
    report.samples = static_cast<std::int64_t>(sums[0]);
    report.loss = sums[1] / count;
    report.measures = {{"top1", sums[2] / count}, {"top5", sums[3] / count}};
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

// Of the classes of all pictures, in their order.
std::uint64_t fingerprint(const Dataset& data) {
  Hash hash;
  for (std::int64_t i = 0; i < data.size(); ++i) hash.add(static_cast<std::uint64_t>(data.label(i)));
  return hash.value();
}

Json facts_of(const Dataset& data) {
  return {{"pictures", data.size()}, {"classes", data.class_names()}, {"labels", fingerprint(data)}};
}

// A file of numbers may lack the last classes.
void check_classes(const Dataset& data, const Dataset& val) {
  const std::vector<std::string>& all = data.class_names();
  const std::vector<std::string>& some = val.class_names();
  const bool fits = some.size() <= all.size() && std::equal(some.begin(), some.end(), all.begin());
  require<ConfigError>(fits, "train", "the classes of {} ({}) are not those of {} ({})", val.name(),
                       printable(fmt::format("{}", fmt::join(some, ", ")), 80), data.name(),
                       printable(fmt::format("{}", fmt::join(all, ", ")), 80));
}

void check_picture_keys(const TrainConfig& c) {
  require<ConfigError>(c.tokenizer.empty() && c.ctx_len == 0, "train",
                       "tokenizer and ctx_len are for models that read text, the model {} reads pictures",
                       printable(c.from.empty() ? c.model : c.from, 200));
}

class PictureTask final : public Task {
 public:
  explicit PictureTask(TaskSetting setting)
      : config_(std::move(setting.config)),
        options_(std::move(setting.options)),
        processes_(std::move(setting.processes)) {
    check_picture_keys(config_);
    data_ = open_dataset(config_.data, Split::kTrain);
    if (!config_.val.empty()) val_ = open_dataset(config_.val, Split::kTest);
    if (val_) check_classes(*data_, *val_);
    start_ = starting_model(config_, std::move(setting.origin), *data_);
    graph_ = training_graph(*start_.architecture, input());
  }

  const ModelData& start() const override { return start_; }
  Json facts() const override {
    Json facts = {{"data", facts_of(*data_)}};
    if (val_) facts["val"] = facts_of(*val_);
    return facts;
  }

  Shape input() const override {
    const std::int64_t side = start_.preprocess.crop;
    return {config_.batch, require_pictures(*start_.architecture).in_channels(), side, side};
  }
  std::int64_t samples_per_pass() const override { return config_.batch; }
  std::string_view unit() const override { return "pictures"; }
  std::int64_t passes_per_epoch() const override { return per_epoch_; }
  void seek(std::int64_t pass) override {
    loader_.emplace(data_, loader_options());
    per_epoch_ = loader_->steps_per_epoch();
    if (pass > 0) loader_.emplace(data_, loader_options(), pass / per_epoch_, pass % per_epoch_);
  }

  TrainingBatch next() override {
    TrainBatch batch = loader_->next();
    const std::int64_t first = (batch.step * processes_->world() + processes_->rank()) * config_.batch;
    return {.input = std::move(batch.images),
            .targets = std::move(batch.targets),
            .branches = draw_branches(*graph_, config_.drop_path, config_.seed, batch.epoch, first)};
  }

  bool judges() const override { return val_ != nullptr; }
  Criterion criterion() const override { return {.name = "top1"}; }
  void judge(const Model& model, Trainer& trainer, EvalReport& report) const override {
    EvalLoader pictures(val_, {.preprocess = start_.preprocess,
                               .batch = config_.batch,
                               .rank = processes_->rank(),
                               .world = processes_->world(),
                               .workers = options_.workers});
    std::optional<Session> session;
    if (!options_.cuda) session.emplace(model, SessionOptions{.threads = options_.threads});
    PictureScore score;
    while (const std::optional<EvalBatch> batch = pictures.next()) {
      score.add(session ? session->logits(batch->images) : trainer.logits(batch->images), batch->labels);
    }
    score.fill(report, *processes_);
  }

 private:
  LoaderOptions loader_options() const {
    return {.preprocess = start_.preprocess,
            .augment = config_.augment,
            .seed = config_.seed,
            .batch = config_.batch,
            .rank = processes_->rank(),
            .world = processes_->world(),
            .workers = options_.workers,
            .prefetch = std::min(1 + config_.accumulate, 32)};  // a step's, while the one before is computed
  }

  TrainConfig config_;
  RunOptions options_;
  std::shared_ptr<Processes> processes_;
  std::shared_ptr<const Dataset> data_, val_;
  ModelData start_;
  std::unique_ptr<Graph> graph_;  // for its inputs' names and shapes
  std::optional<Loader> loader_;
  std::int64_t per_epoch_ = 1;  // passes
};

}  // namespace

std::unique_ptr<Task> make_picture_task(TaskSetting setting) {
  return std::make_unique<PictureTask>(std::move(setting));
}

}  // namespace weft
