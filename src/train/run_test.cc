#include "train/run.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "api/model_data.h"
#include "core/options.h"
#include "data/testing/pictures.h"
#include "io/testing/files.h"
#include "train/state.h"
#include "train/testing/watching.h"
#include "weft/model.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::in_threads;
using testing::Listener;
using testing::read_text;
using testing::refuses;
using testing::TemporaryDirectory;
using testing::timeless;
using testing::write_text;

// Stands in for libtorch: every weight moves by what it sees, so that the bits tell whether a run saw the same pictures
// at the same rates in the same order.
class CountingTrainer final : public Trainer {
 public:
  explicit CountingTrainer(const TrainingStart& start) {
    for (const auto& [name, tensor] : start.weights) state_.weights.emplace(name, tensor.clone());
  }
  std::string description() const override { return "counting"; }
  StepResult step(std::span<const TrainingBatch> batches, double learning_rate) override {
    double sum = 0;
    for (const TrainingBatch& batch : batches) {
      for (const float x : batch.input.data<float>()) sum += x;
      for (const Tensor& branch : batch.branches) sum += branch.data<float>()[0];
    }
    if (state_.steps == nan_at) throw NumericError("[here] gave a NaN");
    if (state_.steps == unreadable_at) throw IoError("[a picture] cannot be read");
    ++state_.steps;
    for (auto& [name, tensor] : state_.weights) {
      for (float& x : tensor.mutable_data<float>()) x += static_cast<float>(1e-4 * learning_rate * std::sin(sum));
    }
    return {.loss = 2 + std::sin(sum), .gradient_norm = 1};
  }
  Tensor logits(const Tensor&) override { throw Error("[test] the CPU engine judges"); }
  TrainerState::Tensors weights() const override {
    TrainerState::Tensors weights = state().weights;
    if (!head) return weights;
    for (const char* const name : {"head.fc.weight", "head.fc.bias"}) {
      std::ranges::fill(weights.at(name).mutable_data<float>(), *head);
    }
    return weights;
  }
  TrainerState state() const override {
    TrainerState copy{.steps = state_.steps};
    for (const auto& [name, tensor] : state_.weights) copy.weights.emplace(name, tensor.clone());
    return copy;
  }
  void restore(const TrainerState& state) override {
    state_.steps = state.steps;
    for (auto& [name, tensor] : state_.weights) tensor = state.weights.at(name).clone();
  }

  std::int64_t nan_at = -1;
  std::int64_t unreadable_at = -1;
  std::optional<float> head;  // what all of its weights are

 private:
  TrainerState state_;
};

const MakeTrainer kCounting = [](const TrainerOptions&, const TrainingStart& start) {
  return std::make_shared<CountingTrainer>(start);
};

// One with a member set.
template <class T>
MakeTrainer counting_with(T CountingTrainer::*member, T value) {
  return [=](const TrainerOptions&, const TrainingStart& start) {
    auto trainer = std::make_shared<CountingTrainer>(start);
    (*trainer).*member = value;
    return trainer;
  };
}

class TrainingRun : public ::testing::Test {
 protected:
  TrainingRun() {
    write_records("train.bin", 26);
    write_records("val.bin", 9);
    config_ = find_recipe("small").config;
    config_.data = (folder_ / "train.bin").string();
    config_.val = (folder_ / "val.bin").string();
    config_.options = {{"patch_size", 8}, {"embed_dims", 8}, {"depth", 2}};
    config_.batch = 4;  // 6 steps an epoch
    config_.epochs = 3;
    config_.log_every = 4;
    config_.drop_path = 0.3;
  }

  void write_records(const char* name, int count) const {
    std::string bytes;
    for (int i = 0; i < count; ++i) bytes += testing::cifar_record(testing::noise_picture(32, 32, 100 + i), i % 10);
    write_text(folder_ / name, bytes);
  }
  RunOptions options(const char* out) const { return {.out = folder_ / out, .threads = 1, .workers = 1}; }

  TemporaryDirectory folder_;
  TrainConfig config_;
  Listener listener_;
};

TEST_F(TrainingRun, WritesModelsStateAndLog) {
  config_.save_every = 2;
  config_.weights = WeightDType::kBF16;
  const RunResult result = train(config_, options("run"), kCounting, listener_);
  EXPECT_TRUE(result.finished);
  EXPECT_EQ(result.steps, 18);
  EXPECT_EQ(listener_.steps.size(), 18U);
  EXPECT_EQ(listener_.evaluations.size(), 3U);
  EXPECT_EQ(listener_.evaluations.back().samples, 9);
  EXPECT_TRUE(listener_.warnings.empty());
  const fs::path run = folder_ / "run";
  for (const char* const name : {"last.safetensors", "best.safetensors", "epoch-0002.safetensors"}) {
    const Model model = Model::load(run / name);
    EXPECT_EQ(model.labels().size(), 10U);
    EXPECT_EQ(model.labels()[3], "cat");
    EXPECT_EQ(model.preprocess().crop, 32);
    EXPECT_FLOAT_EQ(model.preprocess().mean[0], 125.307F);
  }
  EXPECT_FALSE(fs::exists(run / "epoch-0003.safetensors"));
  TrainConfig saved;
  config_from_json(Json::parse(read_text(run / "config.json")), saved, "config.json");
  EXPECT_EQ(saved, config_);
  int steps = 0, evaluations = 0;
  for (const Json& line : timeless(run / "log.jsonl")) {
    steps += line.contains("loss");
    evaluations += line.contains("val_top1");
  }
  EXPECT_EQ(steps, 5);  // 4, 8, 12, 16, 18
  EXPECT_EQ(evaluations, 3);
}

TEST_F(TrainingRun, ResumedIsAsIfNeverInterrupted) {
  config_.save_every = 1;
  for (const int accumulate : {1, 2, 4}) {  // 18 passes
    config_.accumulate = accumulate;
    const fs::path whole = folder_ / fmt::format("whole{}", accumulate);
    Listener straight;
    RunOptions all = options("");
    all.out = whole;
    const std::int64_t steps = train(config_, all, kCounting, straight).steps;
    for (const std::int64_t stop : {1, 3, 5, 7}) {
      if (stop >= steps) continue;
      Listener first, second;
      RunOptions part = all;
      part.out = folder_ / fmt::format("part{}-{}", accumulate, stop);
      part.stop_after = stop;
      EXPECT_FALSE(train(config_, part, kCounting, first).finished);
      // What a process that was killed later would have left behind.
      write_text(part.out / "log.jsonl",
                 read_text(part.out / "log.jsonl") + fmt::format("{{\"step\":{},\"loss\":9}}\n{{\"step\":", stop + 1));
      part.stop_after = 0;
      EXPECT_TRUE(resume({}, part, kCounting, second).finished);
      for (const char* const name : {"state.safetensors", "last.safetensors", "epoch-0001.safetensors",
                                     "epoch-0002.safetensors", "epoch-0003.safetensors"}) {
        EXPECT_EQ(read_text(part.out / name), read_text(whole / name)) << name << " " << accumulate << " " << stop;
      }
      EXPECT_EQ(timeless(part.out / "log.jsonl"), timeless(whole / "log.jsonl")) << stop;
    }
  }
}

TEST_F(TrainingRun, EndsWithAModelWhateverTheNumberOfPasses) {
  config_.epochs = 1;  // of 6 passes
  config_.accumulate = 4;
  EXPECT_EQ(train(config_, options("run"), kCounting, listener_).steps, 1);
  ASSERT_EQ(listener_.evaluations.size(), 1U);
  EXPECT_EQ(listener_.evaluations[0].epoch, 1);
  Model::load(folder_ / "run" / "last.safetensors");
  Model::load(folder_ / "run" / "best.safetensors");
  config_.accumulate = 7;
  EXPECT_TRUE(refuses([&] { train(config_, options("none"), kCounting, listener_); }, "lower accumulate"));
}

TEST_F(TrainingRun, AStepOfManyEpochsMissesNoEvaluation) {
  config_.epochs = 9;
  config_.accumulate = 18;  // three epochs
  config_.eval_every = 2;   // 3, 6 and 9 are done at once
  config_.save_every = 4;
  train(config_, options("run"), kCounting, listener_);
  EXPECT_EQ(listener_.evaluations.size(), 3U);
  EXPECT_FALSE(fs::exists(folder_ / "run" / "epoch-0003.safetensors"));
  EXPECT_TRUE(fs::exists(folder_ / "run" / "epoch-0006.safetensors"));
  EXPECT_TRUE(fs::exists(folder_ / "run" / "epoch-0009.safetensors"));
}

TEST_F(TrainingRun, EqualLogitsAndNaNsAreNoSuccess) {
  config_.epochs = 1;
  // 9 pictures of the classes 0 … 8: of equal logits the first is taken.
  train(config_, options("equal"), counting_with(&CountingTrainer::head, std::optional(0.0F)), listener_);
  EXPECT_DOUBLE_EQ(listener_.evaluations.at(0).measure("top1"), 1.0 / 9);
  EXPECT_DOUBLE_EQ(listener_.evaluations.at(0).measure("top5"), 5.0 / 9);
  train(config_, options("nan"), counting_with(&CountingTrainer::head, std::optional(std::nanf(""))), listener_);
  EXPECT_EQ(listener_.evaluations.at(1).measure("top1"), 0);
  EXPECT_EQ(listener_.evaluations.at(1).measure("top5"), 0);
}

TEST_F(TrainingRun, APictureThatCannotBeReadCostsNoStep) {
  const MakeTrainer failing = counting_with(&CountingTrainer::unreadable_at, std::int64_t{8});
  EXPECT_TRUE(refuses([&] { train(config_, options("run"), failing, listener_); }, "[a picture] cannot be read"));
  EXPECT_EQ(read_state(folder_ / "run").trainer.steps, 8);
}

TEST_F(TrainingRun, StopsAtOnceWhereEnoughStepsAreDone) {
  RunOptions all = options("run");
  all.stop_after = 4;
  train(config_, all, kCounting, listener_);
  all.stop_after = 2;
  EXPECT_EQ(resume({}, all, kCounting, listener_).step, 4);
}

TEST_F(TrainingRun, AValidationPictureThatCannotBeReadCostsTheEvaluationOnly) {
  for (const char* const name : {"airplane", "bird"}) {
    fs::create_directories(folder_ / "val" / name);
    write_text(folder_ / "val" / name / "a.png", "no picture");
  }
  config_.val = (folder_ / "val").string();
  EXPECT_TRUE(refuses([&] { train(config_, options("run"), kCounting, listener_); }, "are not those of"));
  fs::rename(folder_ / "val" / "bird", folder_ / "val" / "automobile");
  const RunResult result = train(config_, options("run"), kCounting, listener_);
  EXPECT_TRUE(result.finished);
  EXPECT_FALSE(result.best.has_value());
  ASSERT_EQ(listener_.warnings.size(), 3U);
  EXPECT_NE(listener_.warnings[0].find("a.png"), std::string::npos) << listener_.warnings[0];
  EXPECT_TRUE(fs::exists(folder_ / "run" / "last.safetensors"));
}

TEST_F(TrainingRun, AListenerStopsItAndTheStateIsSaved) {
  listener_.stop_at = 5;
  const RunResult result = train(config_, options("run"), kCounting, listener_);
  EXPECT_FALSE(result.finished);
  EXPECT_EQ(result.step, 5);
  EXPECT_EQ(read_state(folder_ / "run").trainer.steps, 5);
}

// Keeps what each step sees of each picture: its first pixel and its branches.
class WatchingTrainer final : public Trainer {
 public:
  WatchingTrainer(const TrainingStart& start, std::vector<std::vector<float>>& seen)
      : weights_(start.weights), seen_(seen) {}
  std::string description() const override { return "watching"; }
  StepResult step(std::span<const TrainingBatch> batches, double) override {
    std::vector<float> pictures;
    for (const TrainingBatch& batch : batches) {
      const std::int64_t count = batch.input.shape()[0];
      for (std::int64_t b = 0; b < count; ++b) {
        pictures.push_back(batch.input.data<float>()[static_cast<std::size_t>(b * batch.input.elements() / count)]);
        for (const Tensor& branch : batch.branches)
          pictures.push_back(branch.data<float>()[static_cast<std::size_t>(b)]);
      }
    }
    seen_.push_back(pictures);
    ++steps_;
    return {.loss = 1, .gradient_norm = 1};
  }
  Tensor logits(const Tensor&) override { throw Error("[test] the CPU engine judges"); }
  TrainerState::Tensors weights() const override { return weights_; }
  TrainerState state() const override { return {.steps = steps_, .weights = weights_}; }
  void restore(const TrainerState& state) override { steps_ = state.steps; }

 private:
  TrainerState::Tensors weights_;
  std::vector<std::vector<float>>& seen_;
  std::int64_t steps_ = 0;
};

using Seen = std::vector<std::vector<float>>;  // by step
MakeTrainer watching(Seen& seen) {
  return [&seen](const TrainerOptions&, const TrainingStart& start) {
    return std::make_shared<WatchingTrainer>(start, seen);
  };
}

TEST_F(TrainingRun, SeveralProcessesSeeTogetherWhatOneSees) {
  Seen expected;
  EXPECT_TRUE(train(config_, options("one"), watching(expected), listener_).finished);
  ASSERT_EQ(expected.size(), 18U);

  config_.batch = 2;
  std::array<Seen, 2> seen;
  std::array<Listener, 2> listeners;
  RunOptions first = options("two");
  first.stop_after = 8;  // within the second epoch
  const auto index = [](const RunOptions& own) { return static_cast<std::size_t>(own.processes->rank()); };
  in_threads(2, first, [&](const RunOptions& own) {
    EXPECT_FALSE(train(config_, own, watching(seen[index(own)]), listeners[index(own)]).finished);
  });
  EXPECT_EQ(read_state(folder_ / "two").world, 2);
  in_threads(2, options("two"), [&](const RunOptions& own) {
    EXPECT_TRUE(resume({}, own, watching(seen[index(own)]), listeners[index(own)]).finished);
  });
  for (std::size_t step = 0; step < expected.size(); ++step) {
    std::vector<float> both = seen[0].at(step);
    both.insert(both.end(), seen[1].at(step).begin(), seen[1].at(step).end());
    EXPECT_EQ(both, expected[step]) << step;
  }
  std::vector<Json> one = timeless(folder_ / "one" / "log.jsonl"), two = timeless(folder_ / "two" / "log.jsonl");
  for (std::size_t i = 0; i < std::min(one.size(), two.size()); ++i) {
    if (!one[i].contains("val_loss") || !two[i].contains("val_loss")) continue;
    EXPECT_NEAR(one[i]["val_loss"].get<double>(), two[i]["val_loss"].get<double>(),
                std::ldexp(9 * 2.5, -53));  // nine terms in f64, in another order
    one[i]["val_loss"] = two[i]["val_loss"];
  }
  EXPECT_EQ(two, one);
  EXPECT_EQ(listeners[0].evaluations.back().samples, 9);
  EXPECT_EQ(listeners[0].steps.size(), 18U);
  EXPECT_TRUE(listeners[1].steps.empty() && listeners[1].evaluations.empty());  // rank 0 speaks for all
}

TEST_F(TrainingRun, OneProcessOfSeveralStopsAll) {
  std::array<Seen, 2> seen;
  in_threads(2, options("run"), [&](const RunOptions& own) {
    const int rank = own.processes->rank();
    Listener listener;
    listener.stop_at = rank == 1 ? 0 : -1;  // at once: it is told of no steps
    EXPECT_EQ(train(config_, own, watching(seen[static_cast<std::size_t>(rank)]), listener).step, 1);
  });
  EXPECT_EQ(read_state(folder_ / "run").trainer.steps, 1);
}

TEST_F(TrainingRun, GoesOnInAnotherNumberOfProcessesWhereTheOrderStays) {
  Seen expected, seen;
  train(config_, options("one"), watching(expected), listener_);
  RunOptions first = options("run");
  first.stop_after = 7;
  train(config_, first, watching(seen), listener_);
  std::array<Seen, 2> halves;
  in_threads(2, options("run"), [&](const RunOptions& own) {
    Listener listener;
    const auto half = [&](int batch) {
      resume({.batch = batch}, own, watching(halves[static_cast<std::size_t>(own.processes->rank())]), listener);
    };
    EXPECT_TRUE(refuses([&] { half(0); }, "1 process of batch 4; with 2 processes of batch 4 the order"));
    EXPECT_TRUE(refuses([&] { half(3); }, "or with --batch 2"));
    half(2);
  });
  for (std::size_t step = 0; step < halves[0].size(); ++step) {
    std::vector<float> both = halves[0][step];
    both.insert(both.end(), halves[1][step].begin(), halves[1][step].end());
    EXPECT_EQ(both, expected[7 + step]);
  }
  EXPECT_EQ(halves[0].size(), 11U);
}

TEST_F(TrainingRun, ProcessesMustAgree) {
  in_threads(2, options("run"), [&](const RunOptions& own) {
    TrainConfig config = config_;
    if (own.processes->rank() == 1) config.clip = 5;
    Listener listener;
    EXPECT_TRUE(refuses([&] { train(config, own, kCounting, listener); },
                        "configuration/clip is 5.0 at rank 1, 1.0 at rank 0"));
  });
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(TrainingRun, DivergenceLeavesTheLastState) {
  const MakeTrainer diverging = counting_with(&CountingTrainer::nan_at, std::int64_t{8});
  EXPECT_THROW(train(config_, options("run"), diverging, listener_), NumericError);
  EXPECT_EQ(read_state(folder_ / "run").trainer.steps, 6);  // of the first epoch's end
}

TEST_F(TrainingRun, AFileThatCannotBeWrittenIsWarnedOfAndTriedAgain) {
  // A folder in the place of a file is the one thing that not even root can write over.
  fs::create_directories(folder_ / "run" / "last.safetensors");
  EXPECT_TRUE(refuses([&] { train(config_, options("run"), kCounting, listener_); }, "last.safetensors"));
  EXPECT_EQ(listener_.warnings.size(), 2U);  // the third time is the last
  EXPECT_EQ(listener_.evaluations.size(), 3U);
}

TEST_F(TrainingRun, WhatCouldNotBeWrittenIsNotTheBestSoFar) {
  const fs::path best = folder_ / "run" / "best.safetensors";
  fs::create_directories(best);
  RunOptions part = options("run");
  part.stop_after = 6;  // an epoch
  train(config_, part, kCounting, listener_);
  EXPECT_EQ(listener_.warnings.size(), 1U);
  EXPECT_FALSE(read_state(part.out).best.has_value());
  fs::remove(best);
  resume({}, options("run"), kCounting, listener_);
  EXPECT_TRUE(fs::is_regular_file(best));
}

TEST_F(TrainingRun, WritesOverNothing) {
  config_.epochs = 1;
  const auto again = [&] { train(config_, options("run"), kCounting, listener_); };
  again();
  const std::string log = read_text(folder_ / "run" / "log.jsonl");
  fs::remove(folder_ / "run" / "state.safetensors");
  EXPECT_TRUE(refuses(again, "last.safetensors"));
  EXPECT_EQ(read_text(folder_ / "run" / "log.jsonl"), log);
  fs::create_directories(folder_ / "project");
  write_text(folder_ / "project" / "config.json", "{}");
  EXPECT_TRUE(refuses([&] { train(config_, options("project"), kCounting, listener_); }, "of no training run"));
}

TEST_F(TrainingRun, RefusesWhatMakesNoSense) {
  const auto error = [&] { train(config_, options("run"), kCounting, listener_); };
  const TrainConfig good = config_;
  config_.batch = 27;
  EXPECT_TRUE(refuses(error, "27"));
  config_ = good;
  config_.options["num_classes"] = 7;
  EXPECT_TRUE(refuses(error, "the model has 7 classes"));
  config_ = good;
  config_.model = "vrwkv_teeny";
  EXPECT_TRUE(refuses(error, "vrwkv_teeny"));
  config_ = good;
  config_.data = (folder_ / "nowhere").string();
  EXPECT_TRUE(refuses(error, "nowhere"));
  EXPECT_FALSE(fs::exists(folder_ / "run"));
  EXPECT_TRUE(refuses([&] { resume({}, options("run"), kCounting, listener_); }, "no saved state"));
  config_ = good;
  listener_.stop_at = 1;
  train(config_, options("run"), kCounting, listener_);
  EXPECT_TRUE(refuses(error, "holds a training run already"));
}

TEST_F(TrainingRun, FineTuningKeepsTheBackboneAndMakesANewHead) {
  config_.epochs = 1;
  config_.lr = 0;
  config_.min_lr = 0;
  train(config_, options("first"), kCounting, listener_);
  const std::string file = (folder_ / "first" / "last.safetensors").string();
  const auto tuned = [&](const char* data, const char* out) {
    TrainConfig config = config_;
    config.model = "";
    config.from = file;
    config.options = Json::object();
    config.data = (folder_ / data).string();
    config.val = "";
    config.seed = 5;
    config.mean.reset();
    Listener listener;
    train(config, options(out), kCounting, listener);
    EXPECT_TRUE(listener.evaluations.empty());
    return Model::load(folder_ / out / "last.safetensors");
  };
  const Model first = Model::load(file);
  const Model same = tuned("train.bin", "same");
  const auto weight = [](const Model& model, const char* name) {
    const auto values = model.data().weights.find(name)->second.data<float>();
    return std::vector<float>(values.begin(), values.end());
  };
  for (const char* const name : {"backbone.layers.1.att.key.weight", "backbone.pos_embed", "head.fc.weight"}) {
    EXPECT_EQ(weight(same, name), weight(first, name)) << name;
  }
  EXPECT_EQ(same.preprocess(), first.preprocess());
}

TEST(RunState, ALineThatTheDiskHadNoRoomForEndsNoLog) {
  TemporaryDirectory folder;
  write_text(folder / "log.jsonl", "{\"step\":1}\n{\"step\":2,\"lo\n{\"step\":3}\n\n{\"step\":4}\n{\"st");
  rewind_log(folder.path(), 3);
  EXPECT_EQ(read_text(folder / "log.jsonl"), "{\"step\":1}\n{\"step\":3}\n");
}

TEST_F(TrainingRun, ANewHeadLeavesTheFinalNormAlone) {
  config_.options["embed_dims"] = 10;  // as many channels as classes
  config_.epochs = 1;
  config_.augment.cutmix = 0;
  config_.lr = 100;  // so that no weight is what a fresh one is
  train(config_, options("first"), kCounting, listener_);
  const auto big_endian = [](std::uint32_t x) {
    std::string bytes;
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(x >> shift);
    return bytes;
  };
  std::string pictures = big_endian(0x803) + big_endian(10) + big_endian(32) + big_endian(32);
  std::string labels = big_endian(0x801) + big_endian(10);
  for (int i = 0; i < 10; ++i) {
    for (int j = 0; j < 32 * 32; ++j) pictures += static_cast<char>(i * j);
    labels += static_cast<char>(i);
  }
  write_text(folder_ / "train-images-idx3-ubyte", pictures);
  write_text(folder_ / "train-labels-idx1-ubyte", labels);
  config_.model = "";
  config_.from = (folder_ / "first" / "last.safetensors").string();
  config_.options = Json::object();
  config_.data = (folder_ / "train-images-idx3-ubyte").string();  // classes "0" … "9"
  config_.val = "";
  config_.lr = config_.min_lr = 0;
  train(config_, options("second"), kCounting, listener_);
  const Model first = Model::load(config_.from);
  const Model second = Model::load(folder_ / "second" / "last.safetensors");
  const auto same = [&](const char* name) {
    return std::ranges::equal(first.data().weights.find(name)->second.data<float>(),
                              second.data().weights.find(name)->second.data<float>());
  };
  EXPECT_TRUE(same("backbone.ln1.weight"));
  EXPECT_TRUE(same("backbone.layers.1.att.key.weight"));
  EXPECT_FALSE(same("head.fc.weight"));
}

TEST(RunState, DamagedOrForeignFilesAreToldApart) {
  TemporaryDirectory folder;
  write_text(folder / "state.safetensors", "nonsense");
  EXPECT_TRUE(refuses([&] { read_state(folder.path()); }, "state.safetensors"));
  RunState state;
  state.trainer.steps = 7;
  state.trainer.weights.emplace("a", Tensor::of(std::vector<float>{1, 2}, {2}));
  state.trainer.second.emplace("a", Tensor::of(std::vector<float>{3, 4}, {2}));
  state.best = 0.5;
  write_state(folder.path(), state);
  const RunState back = read_state(folder.path());
  EXPECT_EQ(back.trainer.steps, 7);
  EXPECT_EQ(back.best, 0.5);
  EXPECT_EQ(back.trainer.weights.at("a").data<float>()[1], 2);
  EXPECT_EQ(back.trainer.second.at("a").data<float>()[0], 3);
  EXPECT_TRUE(back.trainer.first.empty());
  EXPECT_EQ(back.config, state.config);
}

// Before there was text.
TEST(RunState, ReadsThatOfVersionOne) {
  RunState state;
  Json position = position_of(state);
  position["version"] = 1;
  position.erase("best");
  position["best_top1"] = -1;
  state.best = 7;
  set_position(position, state, "old");
  EXPECT_FALSE(state.best.has_value());
  position["best_top1"] = 0.25;
  position["config"].erase("tokenizer");
  set_position(position, state, "old");
  EXPECT_EQ(state.best, 0.25);
  position["version"] = 3;
  EXPECT_TRUE(refuses([&] { set_position(position, state, "new"); }, "[new] is of version 3, this weft reads 1 … 2"));
}

}  // namespace
}  // namespace weft
