// Next-token training of a small RWKV-4.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "api/model_data.h"
#include "io/testing/files.h"
#include "models/architecture.h"
#include "torch/trainer.h"
#include "train/plan.h"

namespace weft {
namespace {

using testing::refuses;

constexpr std::int64_t kVocabulary = 11;

struct Language {
  std::shared_ptr<const Architecture> architecture = find_family("rwkv4").configure(
      {{"n_layer", 2}, {"n_embd", 16}, {"dim_att", 16}, {"dim_ffn", 32}, {"vocab_size", kVocabulary}});

  TrainingStart start(const Shape& tokens) const {
    TrainingStart start{.graph = [own = architecture](const Shape& input,
                                                      bool training) { return training_graph(*own, input, training); },
                        .input = tokens,
                        .parameters = {},
                        .weights = initial_weights(*architecture, 1)};
    const auto graph = start.graph(tokens, true);
    for (const int id : graph->parameters()) start.parameters.push_back({.name = graph->value(id).name});
    return start;
  }
};

// Of a text that repeats itself every seven tokens; each entry begins elsewhere.
TrainingBatch repeating(std::int64_t entries, std::int64_t length) {
  constexpr std::array<std::int64_t, 7> kPattern = {3, 1, 4, 1, 5, 9, 2};
  TrainingBatch batch{.input = Tensor(DType::kI64, {entries, length}),
                      .targets = Tensor(DType::kI64, {entries, length}),
                      .branches = {}};
  const auto at = [&](std::int64_t i) { return kPattern[static_cast<std::size_t>(i) % kPattern.size()]; };
  for (std::int64_t i = 0; i < entries * length; ++i) {
    const std::int64_t place = 3 * (i / length) + i % length;
    batch.input.mutable_data<std::int64_t>()[static_cast<std::size_t>(i)] = at(place);
    batch.targets.mutable_data<std::int64_t>()[static_cast<std::size_t>(i)] = at(place + 1);
  }
  return batch;
}

TEST(LanguageTrainer, LearnsWhatRepeatsItself) {
  const Language language;
  const std::array batches = {repeating(4, 20)};
  const auto trainer = load_torch_trainer({.torch = {.threads = 1, .fused = true}, .clip_norm = 1},
                                          language.start(batches[0].input.shape()));
  const double before = trainer->step(batches, 1e-2).loss;
  EXPECT_NEAR(before, std::log(kVocabulary), 0.5);  // a model that knows nothing
  double loss = before;
  for (int i = 0; i < 120; ++i) loss = trainer->step(batches, 1e-2).loss;
  // What follows a 1 must be remembered: a 4 behind 3, a 5 behind 4. Who knows the last token only stays above 2/7 ·
  // ln 2.
  EXPECT_LT(loss, 0.05);
}

TEST(LanguageTrainer, LossIsTheMeanOverAllTokens) {
  const Language language;
  const TrainingBatch batch = repeating(3, 9);
  const auto trainer = load_torch_trainer({.torch = {.threads = 1}}, language.start(batch.input.shape()));
  const Tensor logits = trainer->logits(batch.input);
  ASSERT_EQ(logits.shape(), Shape({3, 9, kVocabulary}));
  double expected = 0;
  for (std::size_t row = 0; row < 27; ++row) {
    const auto x = logits.data<float>().subspan(row * kVocabulary, kVocabulary);
    double sum = 0;
    for (const float value : x) sum += std::exp(static_cast<double>(value));
    const auto right = static_cast<std::size_t>(batch.targets.data<std::int64_t>()[row]);
    expected += (std::log(sum) - x[right]) / 27;
  }
  // 27 terms of order 2.4 in f32.
  EXPECT_NEAR(trainer->step(std::array{batch}, 1e-3).loss, expected, 27 * 2.4 * std::ldexp(1, -24));
}

TEST(LanguageTrainer, FusedOrNotTakesTheSameStep) {
  const Language language;
  const TrainingBatch batch = repeating(3, 50);
  const auto stepped = [&](TorchOptions options) {
    options.threads = 1;
    const auto trainer = load_torch_trainer({.torch = options}, language.start(batch.input.shape()));
    trainer->step(std::array{batch}, 1e-2);
    return trainer->step(std::array{batch}, 1e-2);  // of weights that are all away from zero
  };
  const StepResult plain = stepped({});
  const StepResult fused = stepped({.fused = true});
  // Sums over 150 tokens in another order, through two layers of some ten operations each.
  EXPECT_NEAR(fused.loss, plain.loss, 150 * 20 * std::ldexp(plain.loss, -24));
  EXPECT_NEAR(fused.gradient_norm, plain.gradient_norm, 150 * 20 * std::ldexp(plain.gradient_norm, -24));
  const StepResult again = stepped({.fused = true, .recompute = true});
  EXPECT_EQ(again.loss, fused.loss);
  EXPECT_EQ(again.gradient_norm, fused.gradient_norm);
  // Factors rounded to bf16 are off by 2^-9 at most.
  const StepResult rounded = stepped({.fused = true, .bf16 = true});
  EXPECT_NEAR(rounded.loss, plain.loss, 20 * std::ldexp(plain.loss, -9));
}

// To the same bits, on several threads, too.
TEST(LanguageTrainer, GoesOnFromAState) {
  const Language language;
  const TrainingBatch batch = repeating(4, 30);
  const TrainerOptions options{.torch = {.threads = 3, .fused = true}, .clip_norm = 1};
  const auto straight = load_torch_trainer(options, language.start(batch.input.shape()));
  const auto first = load_torch_trainer(options, language.start(batch.input.shape()));
  for (int i = 0; i < 6; ++i) straight->step(std::array{batch}, 1e-2);
  for (int i = 0; i < 3; ++i) first->step(std::array{batch}, 1e-2);
  const auto second = load_torch_trainer(options, language.start(batch.input.shape()));
  second->restore(first->state());
  for (int i = 0; i < 3; ++i) second->step(std::array{batch}, 1e-2);
  const TrainerState want = straight->state();
  const TrainerState got = second->state();
  for (const auto& [name, tensor] : want.weights) {
    EXPECT_TRUE(std::ranges::equal(got.weights.at(name).data<float>(), tensor.data<float>())) << name;
  }
}

TEST(LanguageTrainer, RefusesWhatDoesNotFit) {
  const Language language;
  const TrainingBatch good = repeating(2, 5);
  const auto trainer = load_torch_trainer({}, language.start(good.input.shape()));
  TrainingBatch batch = good;
  batch.targets = Tensor(DType::kI64, {2, 6});
  EXPECT_TRUE(refuses([&] { trainer->step(std::array{batch}, 1e-3); }, "targets must be [2,5], got [2,6]"));
  TrainingStart start = language.start(good.input.shape());
  for (float& x : start.weights.at("blocks.1.ffn.value.weight").mutable_data<float>()) x = 3e38F;
  for (float& x : start.weights.at("blocks.1.ffn.receptance.weight").mutable_data<float>()) x = 1;
  const auto diverged = load_torch_trainer({}, start);
  EXPECT_TRUE(refuses([&] { diverged->step(std::array{good}, 1e-3); }, "[blocks.1"));
}

}  // namespace
}  // namespace weft
