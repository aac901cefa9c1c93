// Training runs on text, with a trainer of the test's own in libtorch's place.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <numbers>

#include "api/model_file.h"
#include "core/options.h"
#include "io/npy.h"
#include "io/testing/files.h"
#include "train/run.h"
#include "train/state.h"
#include "train/testing/watching.h"
#include "weft/language.h"
#include "weft/model.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::error_of;
using testing::in_threads;
using testing::Listener;
using testing::read_text;
using testing::refuses;
using testing::TemporaryDirectory;
using testing::timeless;
using testing::write_text;

using Seen = std::vector<std::vector<std::int64_t>>;  // by step: tokens and targets, entry by entry

// Every weight moves by what it sees, which it keeps.
class ReadingTrainer final : public Trainer {
 public:
  ReadingTrainer(const TrainingStart& start, Seen* seen) : seen_(seen), input_(start.input) {
    for (const auto& [name, tensor] : start.weights) state_.weights.emplace(name, tensor.clone());
    const auto graph = start.graph(start.input, true);
    EXPECT_EQ(graph->inputs().size(), 1U);
    EXPECT_EQ(graph->parameters().size(), start.parameters.size());
  }
  std::string description() const override { return "reading"; }
  StepResult step(std::span<const TrainingBatch> batches, double learning_rate) override {
    std::vector<std::int64_t> read;
    for (const TrainingBatch& batch : batches) {
      EXPECT_EQ(batch.input.shape(), input_);
      EXPECT_EQ(batch.targets.shape(), input_);
      EXPECT_TRUE(batch.branches.empty());
      const auto length = static_cast<std::size_t>(input_[1]);
      for (std::size_t b = 0; b < static_cast<std::size_t>(input_[0]); ++b) {
        for (const Tensor* const tensor : {&batch.input, &batch.targets}) {
          const auto row = tensor->data<std::int64_t>().subspan(b * length, length);
          read.insert(read.end(), row.begin(), row.end());
        }
      }
    }
    double sum = 0;
    for (const std::int64_t token : read) sum = std::sin(sum + static_cast<double>(token));
    ++state_.steps;
    for (auto& [name, tensor] : state_.weights) {
      for (float& x : tensor.mutable_data<float>()) x += static_cast<float>(learning_rate * sum);
    }
    if (seen_) seen_->push_back(std::move(read));
    return {.loss = 2 + sum, .gradient_norm = 1};
  }
  Tensor logits(const Tensor&) override { throw Error("[test] the CPU engine judges"); }
  TrainerState::Tensors weights() const override { return state().weights; }
  TrainerState state() const override {
    TrainerState copy{.steps = state_.steps};
    for (const auto& [name, tensor] : state_.weights) copy.weights.emplace(name, tensor.clone());
    return copy;
  }
  void restore(const TrainerState& state) override {
    state_.steps = state.steps;
    for (auto& [name, tensor] : state_.weights) tensor = state.weights.at(name).clone();
  }

 private:
  Seen* seen_;
  Shape input_;
  TrainerState state_;
};

MakeTrainer reading(Seen* seen = nullptr) {
  return [seen](const TrainerOptions&, const TrainingStart& start) {
    return std::make_shared<ReadingTrainer>(start, seen);
  };
}

class TextRun : public ::testing::Test {
 protected:
  TextRun() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += static_cast<char>('a' + i * i % 26);
    write_text(folder_ / "train.txt", text);
    write_text(folder_ / "val.txt", text.substr(0, 53));
    config_ = find_recipe("text").config;
    config_.data = (folder_ / "train.txt").string();
    config_.val = (folder_ / "val.txt").string();
    config_.tokenizer = "bytes";
    config_.options = {{"n_layer", 2}, {"n_embd", 8}, {"dim_att", 8}, {"dim_ffn", 16}};
    config_.ctx_len = 10;
    config_.batch = 4;  // of 39 windows: 9 steps an epoch
    config_.epochs = 2;
    config_.log_every = 4;
  }
  RunOptions options(const char* out) const { return {.out = folder_ / out, .threads = 1}; }
  void expect_refused(const char* what) {
    const std::string error = error_of([&] { train(config_, options("refused"), reading(), listener_); });
    EXPECT_NE(error.find(what), std::string::npos) << error;
    EXPECT_FALSE(fs::exists(folder_ / "refused"));
  }

  TemporaryDirectory folder_;
  TrainConfig config_;
  Listener listener_;
};

TEST_F(TextRun, WritesModelsStateAndLog) {
  const RunResult result = train(config_, options("run"), reading(), listener_);
  EXPECT_TRUE(result.finished);
  EXPECT_EQ(result.steps, 18);
  EXPECT_EQ(result.criterion, "loss");
  EXPECT_EQ(listener_.steps.at(0).samples, 40);
  EXPECT_EQ(listener_.steps.at(0).unit, "tokens");
  ASSERT_EQ(listener_.evaluations.size(), 2U);
  EXPECT_EQ(listener_.evaluations[0].samples, 50);  // of 52 that follow one
  const Model model = Model::load(folder_ / "run" / "best.safetensors");
  EXPECT_EQ(require_language(*model.data().architecture).vocab_size(), 256);
  EXPECT_TRUE(model.labels().empty());
  const double best = std::min(listener_.evaluations[0].loss, listener_.evaluations[1].loss);
  EXPECT_EQ(result.best, best);
  EXPECT_EQ(model.data().provenance["metrics"]["val_loss"], best);
  for (const Json& line : timeless(folder_ / "run" / "log.jsonl")) {
    if (!line.contains("val_loss")) continue;
    const double loss = line["val_loss"];
    EXPECT_DOUBLE_EQ(line["val_perplexity"].get<double>(), std::exp(loss));
    EXPECT_DOUBLE_EQ(line["val_bits_per_byte"].get<double>(), loss / std::numbers::ln2);  // a token is a byte
  }
  EXPECT_NE(read_text(folder_ / "run" / "log.jsonl").find("tokens_per_second"), std::string::npos);
}

// What is judged is the model itself, window by window.
TEST_F(TextRun, ValidationIsTheMeanOverWindows) {
  config_.epochs = 1;
  train(config_, options("run"), reading(), listener_);
  const LanguageSession session(Model::load(folder_ / "run" / "last.safetensors"), {.threads = 1});
  const std::string text = read_text(folder_ / "val.txt");
  double loss = 0;
  for (std::size_t begin = 0; begin < 50; begin += 10) {
    LanguageState state = session.start();
    for (std::size_t i = begin; i < begin + 10; ++i) {
      const std::array token = {static_cast<std::int32_t>(text[i])};
      const Tensor logits = session.read(token, state);
      double sum = 0;
      for (const float x : logits.data<float>()) sum += std::exp(static_cast<double>(x));
      loss += (std::log(sum) - logits.data<float>()[static_cast<std::size_t>(text[i + 1])]) / 50;
    }
  }
  // The two ways to read differ by rounding in f32 of logits of order one.
  EXPECT_NEAR(listener_.evaluations.at(0).loss, loss, 1e-5);
}

TEST_F(TextRun, ResumedIsAsIfNeverInterrupted) {
  for (const int accumulate : {1, 4}) {
    config_.accumulate = accumulate;
    const RunOptions whole = options(accumulate == 1 ? "whole1" : "whole4");
    train(config_, whole, reading(), listener_);
    RunOptions part = options(accumulate == 1 ? "part1" : "part4");
    part.stop_after = 3;
    EXPECT_FALSE(train(config_, part, reading(), listener_).finished);
    part.stop_after = 0;
    EXPECT_TRUE(resume({}, part, reading(), listener_).finished);
    for (const char* const name : {"state.safetensors", "last.safetensors", "best.safetensors"}) {
      EXPECT_EQ(read_text(part.out / name), read_text(whole.out / name)) << name;
    }
    EXPECT_EQ(timeless(part.out / "log.jsonl"), timeless(whole.out / "log.jsonl"));
  }
}

TEST_F(TextRun, SeveralProcessesReadTogetherWhatOneReads) {
  Seen expected;
  train(config_, options("one"), reading(&expected), listener_);
  config_.batch = 2;
  std::array<Seen, 2> seen;
  std::array<Listener, 2> listeners;
  in_threads(2, options("two"), [&](const RunOptions& own) {
    const auto rank = static_cast<std::size_t>(own.processes->rank());
    EXPECT_TRUE(train(config_, own, reading(&seen[rank]), listeners[rank]).finished);
  });
  ASSERT_EQ(expected.size(), 18U);
  for (std::size_t step = 0; step < expected.size(); ++step) {
    std::vector<std::int64_t> both = seen[0].at(step);
    both.insert(both.end(), seen[1].at(step).begin(), seen[1].at(step).end());
    EXPECT_EQ(both, expected[step]) << step;
  }
  EXPECT_EQ(listeners[0].evaluations.at(0).samples, 50);
}

TEST_F(TextRun, GoesOnFromAFile) {
  config_.epochs = 1;
  train(config_, options("first"), reading(), listener_);
  config_.model = "";
  config_.from = (folder_ / "first" / "last.safetensors").string();
  config_.options = Json::object();
  config_.lr = config_.min_lr = 0;
  config_.ctx_len = 20;
  train(config_, options("second"), reading(), listener_);
  const Model first = Model::load(config_.from);
  const Model second = Model::load(folder_ / "second" / "last.safetensors");
  for (const auto& [name, weight] : first.data().weights) {
    EXPECT_TRUE(std::ranges::equal(second.data().weights.at(name).data<float>(), weight.data<float>())) << name;
  }
  config_.options["n_layer"] = 3;
  expect_refused("cannot be another model than it is: expected no options, got {\"n_layer\":3}");
  config_.options = Json::object();
  write_text(folder_ / "vocabulary", "1 'a' 1\n2 'b' 1\n3 'ab' 2\n");
  config_.tokenizer = (folder_ / "vocabulary").string();
  expect_refused("knows 256 tokens, the tokenizer");
}

TEST_F(TextRun, TokensNeedNoTokenizer) {
  Tensor tokens(DType::kI64, {100});
  for (std::size_t i = 0; i < 100; ++i) tokens.mutable_data<std::int64_t>()[i] = static_cast<std::int64_t>(i % 50);
  write_npy(folder_ / "tokens.npy", tokens);
  config_.data = config_.val = (folder_ / "tokens.npy").string();
  config_.tokenizer = "";
  config_.options["vocab_size"] = 49;
  expect_refused("has token 49, the model knows 0 … 48; set options.vocab_size=50");
  config_.options["vocab_size"] = 50;
  train(config_, options("run"), reading(), listener_);
  EXPECT_TRUE(std::isnan(listener_.evaluations.at(0).measure("bits_per_byte")));  // of whose bytes nobody knows
  EXPECT_FALSE(std::isnan(listener_.evaluations.at(0).measure("perplexity")));
}

TEST_F(TextRun, RefusesWhatIsForPictures) {
  const TrainConfig good = config_;
  config_.image_size = 32;
  config_.augment.hflip = 0.5;
  config_.drop_path = 0.1;
  config_.mean = {1, 2, 3};
  expect_refused("the model rwkv4_169m reads text: image_size, mean, augment, drop_path must not be set");
  config_ = good;
  config_.ctx_len = 0;
  expect_refused("ctx_len must be 1 … 1048576, got 0");
  config_ = good;
  config_.ctx_len = 400;
  expect_refused("train.txt] has 400 tokens, which do not fill one window of 400");
  config_ = good;
  config_.ctx_len = 60;
  expect_refused("val.txt] has 53 tokens");
  config_ = good;
  config_.tokenizer = "";
  expect_refused("needs a tokenizer");
  config_ = good;
  config_.tokenizer = (folder_ / "nowhere.json").string();
  expect_refused("nowhere.json");
  config_ = find_recipe("small").config;
  config_.data = folder_.path().string();
  config_.tokenizer = "bytes";
  expect_refused("tokenizer and ctx_len are for models that read text, the model vrwkv_tiny reads pictures");
}

// A text shorter than a step's windows is one pass an epoch.
TEST_F(TextRun, AShortTextIsOnePassAnEpoch) {
  config_.batch = 100;
  config_.epochs = 3;
  EXPECT_EQ(train(config_, options("run"), reading(), listener_).steps, 3);
}

}  // namespace
}  // namespace weft
