#include "torch/trainer.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>

#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "api/model_data.h"
#include "graph/evaluate.h"
#include "io/testing/files.h"
#include "models/architecture.h"
#include "ops/ops.h"
#include "ops/testing/random.h"
#include "torch/testing/free_port.h"

namespace weft {
namespace {

using testing::refuses;
using Tensors = TrainerState::Tensors;

// y = x·Wᵀ + b: three features, two classes.
std::unique_ptr<Graph> affine_graph(const Shape& images, bool training) {
  auto graph = std::make_unique<Graph>("affine", training);
  const Value x = graph->input("image", {DType::kF32, images});
  const Value flat = reshape(x, {images[0], images.elements() / images[0]});
  graph->output("logits", linear(flat, Scope(*graph)["fc"], 2, init::constant(0), init::constant(0)));
  return graph;
}

const Shape kImages = {2, 3, 1, 1};

TrainingStart affine_start() {
  return {.graph = affine_graph,
          .input = kImages,
          .parameters = {{.name = "fc.weight", .lr_scale = 0.5, .weight_decay = 0.1}, {.name = "fc.bias"}},
          .weights = {{"fc.weight", Tensor::of(std::vector<float>{0.5F, -0.25F, 0.75F, 0.1F, 0.2F, -0.3F}, {2, 3})},
                      {"fc.bias", Tensor::of(std::vector<float>{0.1F, -0.1F}, {2})}}};
}

TrainingBatch affine_batch(float scale = 1) {
  return {.input = Tensor::of(std::vector<float>{1 * scale, 2, -1, 0.5F, -0.5F, 3}, kImages),
          .targets = Tensor::of(std::vector<float>{1, 0, 0.25F, 0.75F}, {2, 2})};
}

// The same in doubles, by hand.
struct ByHand {
  std::vector<double> weights = {0.5F, -0.25F, 0.75F, 0.1F, 0.2F, -0.3F, 0.1F, -0.1F};  // of the product, then the bias
  std::vector<double> first = std::vector<double>(8), second = std::vector<double>(8), average = weights;
  int steps = 0;

  // Loss, and the gradient into `gradient`.
  double loss(const TrainingBatch& batch, std::vector<double>& gradient) const {
    const auto x = batch.input.data<float>();
    const auto target = batch.targets.data<float>();
    double total = 0;
    gradient.assign(8, 0);
    for (std::size_t b = 0; b < 2; ++b) {
      std::array<double, 2> y{};
      for (std::size_t c = 0; c < 2; ++c) {
        y[c] = weights[6 + c];
        for (std::size_t i = 0; i < 3; ++i) y[c] += weights[3 * c + i] * x[3 * b + i];
      }
      const double sum = std::log(std::exp(y[0]) + std::exp(y[1]));
      for (std::size_t c = 0; c < 2; ++c) {
        total -= target[2 * b + c] * (y[c] - sum) / 2;
        const double d = (std::exp(y[c] - sum) - target[2 * b + c]) / 2;
        gradient[6 + c] += d;
        for (std::size_t i = 0; i < 3; ++i) gradient[3 * c + i] += d * x[3 * b + i];
      }
    }
    return total;
  }
  // Algorithm 2 of arXiv:1711.05101, and the average.
  void step(const TrainerOptions& o, std::vector<double> gradient, double rate, double clip, double ema) {
    ++steps;
    double norm = 0;
    for (const double g : gradient) norm += g * g;
    norm = std::sqrt(norm);
    for (std::size_t i = 0; i < 8; ++i) {
      const double g = clip > 0 && norm > clip ? gradient[i] * clip / norm : gradient[i];
      first[i] = o.betas[0] * first[i] + (1 - o.betas[0]) * g;
      second[i] = o.betas[1] * second[i] + (1 - o.betas[1]) * g * g;
      const double lr = i < 6 ? 0.5 * rate : rate;
      if (i < 6) weights[i] -= lr * 0.1 * weights[i];
      weights[i] -= lr * first[i] / (1 - std::pow(o.betas[0], steps)) /
                    (std::sqrt(second[i] / (1 - std::pow(o.betas[1], steps))) + o.eps);
      const double keep = std::min(ema, (1.0 + steps) / (10.0 + steps));
      average[i] = keep * average[i] + (1 - keep) * weights[i];
    }
  }
};

TEST(Trainer, StepsAsTheAlgorithmSays) {
  for (const double clip : {0.0, 0.2}) {
    TrainerOptions options{.clip_norm = clip, .ema = 0.9};
    const auto trainer = load_torch_trainer(options, affine_start());
    ByHand expected;
    for (int i = 0; i < 20; ++i) {
      const std::array batches = {affine_batch(), affine_batch(-2)};
      std::vector<double> gradient, other;
      const double loss = (expected.loss(batches[0], gradient) + expected.loss(batches[1], other)) / 2;
      double norm = 0;
      for (std::size_t j = 0; j < 8; ++j) {
        gradient[j] = (gradient[j] + other[j]) / 2;
        norm += gradient[j] * gradient[j];
      }
      const double rate = 0.01 * (i + 1);
      const StepResult result = trainer->step(batches, rate);
      // f32 rounds each of some ten operations to 6e-8; AdamW's quotient is of order one.
      EXPECT_NEAR(result.loss, loss, 3e-6);
      EXPECT_NEAR(result.gradient_norm, std::sqrt(norm), 3e-6);
      expected.step(options, gradient, rate, clip, 0.9);
    }
    const TrainerState state = trainer->state();
    EXPECT_EQ(state.steps, 20);
    const auto compare = [](const Tensors& got, const std::vector<double>& want) {
      for (std::size_t i = 0; i < 8; ++i) {
        const float x = i < 6 ? got.at("fc.weight").data<float>()[i] : got.at("fc.bias").data<float>()[i - 6];
        EXPECT_NEAR(x, want[i], 2e-5);  // 20 steps of at most 0.2 · 6e-8 · 10, and what clipping makes of it
      }
    };
    compare(state.weights, expected.weights);
    compare(state.first, expected.first);
    compare(state.second, expected.second);
    compare(state.average, expected.average);
    compare(trainer->weights(), expected.average);
  }
}

TEST(Trainer, FrozenParametersKeepTheirBits) {
  TrainingStart start = affine_start();
  start.parameters[0].frozen = true;
  const auto trainer = load_torch_trainer({}, start);
  const std::array batches = {affine_batch()};
  for (int i = 0; i < 3; ++i) trainer->step(batches, 0.1);
  const TrainerState state = trainer->state();
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(state.weights.at("fc.weight").data<float>()[i], start.weights.at("fc.weight").data<float>()[i]);
  }
  EXPECT_NE(state.weights.at("fc.bias").data<float>()[0], 0.1F);
  EXPECT_FALSE(state.first.contains("fc.weight"));
}

// What is frozen may be in a fused region with what is not, and want nothing of the backward pass.
TEST(Trainer, FrozenProductsMayStandBeforeTrainedScales) {
  const auto graph = [](const Shape& images, bool) {
    auto scaled = std::make_unique<Graph>("scaled", true);
    const Value x = scaled->input("image", {DType::kF32, images});
    const Value flat = reshape(x, {images[0], images.elements() / images[0]});
    const Value y = linear(flat, Scope(*scaled)["fc"], 2, init::constant(0), init::constant(0));
    scaled->output("logits", mul(y, scaled->parameter("gamma", {DType::kF32, {2}}, init::constant(1))));
    return scaled;
  };
  TrainingStart start = affine_start();
  start.graph = graph;
  for (TrainedParameter& parameter : start.parameters) parameter.frozen = true;
  start.parameters.push_back({.name = "gamma"});
  start.weights.emplace("gamma", Tensor::of(std::vector<float>{1.5F, -0.5F}, {2}));
  const std::array batches = {affine_batch()};
  const auto plain = load_torch_trainer({.torch = {.threads = 1}}, start);
  const double norm = plain->step(batches, 0.1).gradient_norm;
  for (const bool bf16 : {false, true}) {
    const auto trainer = load_torch_trainer({.torch = {.threads = 1, .fused = true, .bf16 = bf16}}, start);
    // Rounded to bf16, factors are off by 2^-9 at most.
    EXPECT_NEAR(trainer->step(batches, 0.1).gradient_norm, norm, norm * (bf16 ? 0.05 : 1e-5));
    EXPECT_EQ(trainer->state().weights.at("fc.bias").data<float>()[0], 0.1F);
  }
}

// One channel; the pictures of a batch have the pixels 1 and 3, then 5 and 9.
TEST(Trainer, KeepsRunningStatistics) {
  TrainingStart start{.graph =
                          [](const Shape& images, bool training) {
                            auto graph = std::make_unique<Graph>("normed", training);
                            const Scope s(*graph);
                            const Value x = reshape(graph->input("image", {DType::kF32, images}), {images[0], 1});
                            const Value normed = batch_norm(x, s["bn"], 0);
                            graph->output("logits", mul(normed, s.param("w", {2}, init::constant(1))));
                            return graph;
                          },
                      .input = {2, 1, 1, 1},
                      .parameters = {{.name = "bn.weight", .frozen = true},
                                     {.name = "bn.bias", .frozen = true},
                                     {.name = "bn.running_mean", .frozen = true},
                                     {.name = "bn.running_var", .frozen = true},
                                     {.name = "w"}},
                      .weights = {{"bn.weight", Tensor::of(std::vector<float>{1}, {1})},
                                  {"bn.bias", Tensor::of(std::vector<float>{0}, {1})},
                                  {"bn.running_mean", Tensor::of(std::vector<float>{0}, {1})},
                                  {"bn.running_var", Tensor::of(std::vector<float>{1}, {1})},
                                  {"w", Tensor::of(std::vector<float>{1, 2}, {2})}}};
  const auto batch = [](float first, float second) {
    return TrainingBatch{.input = Tensor::of(std::vector<float>{first, second}, {2, 1, 1, 1}),
                         .targets = Tensor::of(std::vector<float>{1, 0, 0, 1}, {2, 2}),
                         .branches = {}};
  };
  const auto trainer = load_torch_trainer({}, start);
  const std::array batches = {batch(1, 3), batch(5, 9)};
  const double rate = 0;
  const StepResult result = trainer->step(batches, rate);
  // Normalised by the batch's own statistics both passes see −1 and 1, whose logits are ∓(1, 2).
  EXPECT_NEAR(result.loss, (std::log1p(std::exp(-1.0)) + std::log1p(std::exp(-1.0))) / 2, 1e-6);
  const auto is_near = [&](float mean, float variance) {
    const TrainerState state = trainer->state();
    EXPECT_FLOAT_EQ(state.weights.at("bn.running_mean").data<float>()[0], mean);
    EXPECT_FLOAT_EQ(state.weights.at("bn.running_var").data<float>()[0], variance);
  };
  is_near(0.9F * 0.2F + 0.7F, 0.9F * (0.9F + 0.2F) + 0.8F);
  // As it is used the model normalises by these.
  const Tensor logits = trainer->logits(batches[0].input);
  EXPECT_NEAR(logits.data<float>()[0], (1 - 0.88F) / std::sqrt(1.79F), 1e-6);
  EXPECT_NEAR(logits.data<float>()[3], 2 * (3 - 0.88F) / std::sqrt(1.79F), 1e-5);
  // A step that fails leaves them alone, though its first pass was sound.
  const std::array bad = {batch(1, 3), batch(1, std::numeric_limits<float>::infinity())};
  EXPECT_THROW(trainer->step(bad, rate), NumericError);
  is_near(0.88F, 1.79F);
}

// Judging a model makes nothing that training cannot use.
TEST(Trainer, TrainsAfterItWasJudgedOnTheSameShape) {
  TrainingStart start = affine_start();
  start.graph = [](const Shape& images, bool) {
    auto graph = std::make_unique<Graph>("constant", true);
    const Value x = graph->input("image", {DType::kF32, images});
    const Value flat = reshape(x, {images[0], images.elements() / images[0]});
    const Value y = linear(flat, Scope(*graph)["fc"], 2, init::constant(0), init::constant(0));
    graph->output("logits", mul(y, graph->constant(Tensor::of(std::vector<float>{2, 3}, {2}))));
    return graph;
  };
  const std::array batches = {affine_batch()};
  const auto first = load_torch_trainer({}, start);
  const double loss = first->step(batches, 0.1).loss;
  const auto second = load_torch_trainer({}, start);
  second->logits(batches[0].input);
  EXPECT_EQ(second->step(batches, 0.1).loss, loss);
}

// A real model, small.
struct Real {
  std::unique_ptr<const Architecture> architecture =
      find_family("vision_rwkv")
          .configure({{"img_size", {16, 16}}, {"patch_size", 4}, {"embed_dims", 16}, {"depth", 2}, {"num_classes", 4}});
  Shape images = {4, 3, 16, 16};

  std::unique_ptr<Graph> graph(const Shape& shape, bool training) const {
    auto graph = std::make_unique<Graph>("model", training);
    const ModelValues values = architecture->pictures()->build(*graph, graph->input("image", {DType::kF32, shape}), {});
    graph->output("logits", *values.logits);
    return graph;
  }
  TrainingStart start() const {
    TrainingStart start{.graph = [this](const Shape& shape, bool training) { return graph(shape, training); },
                        .input = images,
                        .parameters = {},
                        .weights = initial_weights(*architecture, 1)};
    const auto example = graph(images, true);
    for (const int id : example->parameters()) start.parameters.push_back({.name = example->value(id).name});
    return start;
  }
  TrainingBatch batch(unsigned seed, std::int64_t count) const {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    TrainingBatch batch{.input = Tensor(DType::kF32, {count, 3, 16, 16}),
                        .targets = Tensor::zeros({DType::kF32, {count, 4}})};
    for (float& x : batch.input.mutable_data<float>()) x = normal(random);
    for (std::int64_t b = 0; b < count; ++b) batch.targets.mutable_data<float>()[4 * b + random() % 4] = 1;
    for (int i = 0; i < 4; ++i) {
      Tensor branch(DType::kF32, {count, 1, 1});
      for (float& x : branch.mutable_data<float>()) x = random() % 3 == 0 ? 0.0F : 1.5F;
      batch.branches.push_back(branch);
    }
    return batch;
  }
};

bool same_bits(const Tensors& a, const Tensors& b) {
  return a.size() == b.size() && std::ranges::all_of(a, [&](const auto& item) {
           const auto x = item.second.template data<float>();
           const auto y = b.at(item.first).template data<float>();
           return std::ranges::equal(x, y);
         });
}

TEST(Trainer, GoesOnFromAStateToTheSameBits) {
  const Real real;
  const TrainerOptions options{.clip_norm = 1, .ema = 0.99};
  const auto straight = load_torch_trainer(options, real.start());
  for (unsigned i = 0; i < 6; ++i) straight->step(std::array{real.batch(i, 4)}, 1e-2);
  const auto first = load_torch_trainer(options, real.start());
  for (unsigned i = 0; i < 3; ++i) first->step(std::array{real.batch(i, 4)}, 1e-2);
  const auto second = load_torch_trainer(options, real.start());
  second->restore(first->state());
  for (unsigned i = 3; i < 6; ++i) second->step(std::array{real.batch(i, 4)}, 1e-2);
  const TrainerState a = straight->state();
  const TrainerState b = second->state();
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_TRUE(same_bits(a.weights, b.weights));
  EXPECT_TRUE(same_bits(a.first, b.first));
  EXPECT_TRUE(same_bits(a.second, b.second));
  EXPECT_TRUE(same_bits(a.average, b.average));
  EXPECT_FALSE(same_bits(a.weights, first->state().weights));
}

TEST(Trainer, LearnsABatchByHeart) {
  const Real real;
  const auto trainer = load_torch_trainer({.clip_norm = 1}, real.start());
  const TrainingBatch batch = real.batch(0, 4);
  double loss = 0;
  for (int i = 0; i < 60; ++i) loss = trainer->step(std::array{batch}, 5e-3).loss;
  EXPECT_LT(loss, 0.2);
}

// Steps that are alike take their memory from the one before.
TEST(Trainer, StepsAskTheSystemForMemoryOnce) {
  mallopt(M_MMAP_THRESHOLD, 64 * 1024);  // what is large goes back to the system where malloc has it back
  const auto new_pages = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
  };
  const Real real;
  const std::array batches = {real.batch(0, 256)};
  const auto trainer = load_torch_trainer({.torch = {.threads = 1, .fused = true}}, real.start());
  for (int i = 0; i < 4; ++i) trainer->step(batches, 1e-3);
  const auto before = new_pages();
  for (int i = 0; i < 3; ++i) trainer->step(batches, 1e-3);
  EXPECT_LT(new_pages() - before, 256);  // 1 MiB; new memory for one step is three times that
}

TEST(Trainer, LogitsAreTheModelsOwn) {
  const Real real;
  const auto trainer = load_torch_trainer({}, real.start());
  const Tensor images = real.batch(3, 2).input;  // another batch size than it trains with
  const Tensor got = trainer->logits(images);
  Graph plain("model");
  const ModelValues values =
      real.architecture->pictures()->build(plain, plain.input("image", {DType::kF32, images.shape()}), {});
  plain.output("logits", *values.logits);
  const Tensor want = evaluate_reference(plain, trainer->weights(), std::array{images})[0];
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(got.data<float>()[i], want.data<double>()[i], 1e-5);  // logits of order 0.1 in f32
  }
}

TEST(Trainer, NamesTheFirstLayerThatGivesANaN) {
  const Real real;
  TrainingStart start = real.start();
  const float huge = 3e38F;
  for (float& x : start.weights.at("backbone.layers.1.ffn.key.weight").mutable_data<float>()) x = huge;
  const auto trainer = load_torch_trainer({}, start);
  EXPECT_TRUE(refuses([&] { trainer->step(std::array{real.batch(0, 4)}, 1e-3); }, "[backbone.layers.1.ffn] "));
  EXPECT_EQ(trainer->state().steps, 0);
  TrainingBatch broken = real.batch(0, 4);
  broken.input.mutable_data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(
      refuses([&] { load_torch_trainer({}, real.start())->step(std::array{broken}, 1e-3); }, "the input image is"));
}

// Some pictures of a batch.
TrainingBatch part_of(const TrainingBatch& batch, std::int64_t first, std::int64_t count) {
  const auto rows = [&](const Tensor& tensor) {
    std::vector<std::int64_t> extents(tensor.shape().extents().begin(), tensor.shape().extents().end());
    const std::int64_t row = tensor.elements() / extents[0];
    extents[0] = count;
    const auto values =
        tensor.data<float>().subspan(static_cast<std::size_t>(first * row), static_cast<std::size_t>(count * row));
    return Tensor::of(std::vector<float>(values.begin(), values.end()), Shape(extents));
  };
  TrainingBatch part{.input = rows(batch.input), .targets = rows(batch.targets)};
  for (const Tensor& branch : batch.branches) part.branches.push_back(rows(branch));
  return part;
}

TEST(Trainer, SeveralProcessesTakeTheStepsOfOne) {
  const Real real;
  // AdamW divides by the size of the gradient, however small: an eps far above its rounding keeps steps smooth.
  const TrainerOptions options{.torch = {.threads = 1}, .eps = 0.1, .clip_norm = 0.5, .ema = 0.9};
  constexpr int kWorld = 3, kSteps = 4;
  const auto passes = [&](int step) {
    const auto seed = static_cast<unsigned>(2 * step);
    return std::array{real.batch(seed, 12), real.batch(seed + 1, 12)};
  };
  TrainingStart start = real.start();
  start.input = {12, 3, 16, 16};
  const auto one = load_torch_trainer(options, start);
  std::vector<StepResult> expected;
  for (int step = 0; step < kSteps; ++step) expected.push_back(one->step(passes(step), 1e-2));

  for (const std::int64_t bucket_bytes : {1, 1000, 1 << 20}) {  // a parameter, some of them, all
    const int port = testing::free_port();
    std::array<TrainerState, kWorld> states;
    std::array<std::vector<StepResult>, kWorld> results;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < kWorld; ++rank) {
      threads.emplace_back([&, rank] {
        try {
          TrainerOptions own = options;
          own.processes = load_torch_processes({.rank = rank, .world = kWorld, .port = port});
          own.bucket_bytes = bucket_bytes;
          TrainingStart begin = real.start();
          // What the others begin with is not asked for.
          if (rank > 0) begin.weights = initial_weights(*real.architecture, 7);
          const auto trainer = load_torch_trainer(own, begin);
          for (int step = 0; step < kSteps; ++step) {
            const auto [first, second] = passes(step);
            const std::array mine = {part_of(first, 4 * rank, 4), part_of(second, 4 * rank, 4)};
            results[rank].push_back(trainer->step(mine, 1e-2));
            if (step == 1) trainer->restore(rank == 0 ? trainer->state() : TrainerState{.steps = 2});
          }
          states[rank] = trainer->state();
        } catch (const Error& error) {
          ADD_FAILURE() << error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (int rank = 0; rank < kWorld; ++rank) {
      EXPECT_EQ(states[rank].steps, kSteps);
      EXPECT_TRUE(same_bits(states[rank].weights, states[0].weights));
      EXPECT_TRUE(same_bits(states[rank].first, states[0].first));
      EXPECT_TRUE(same_bits(states[rank].second, states[0].second));
      EXPECT_TRUE(same_bits(states[rank].average, states[0].average));
      ASSERT_EQ(results[rank].size(), std::size_t{kSteps});
      for (std::size_t i = 0; i < kSteps; ++i) {
        // A sum of 24 terms in f32 in another order; of 24 · 16 for the gradients of what all tokens share.
        EXPECT_NEAR(results[rank][i].loss, expected[i].loss, std::ldexp(24 * expected[i].loss, -24));
        EXPECT_NEAR(results[rank][i].gradient_norm, expected[i].gradient_norm,
                    std::ldexp(24 * 16 * expected[i].gradient_norm, -24));
      }
    }
  }
}

TEST(Processes, ShareTextsAndSums) {
  constexpr int kWorld = 3;
  const int port = testing::free_port();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kWorld; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const auto processes = load_torch_processes({.rank = rank, .world = kWorld, .port = port});
        EXPECT_EQ(processes->rank(), rank);
        EXPECT_EQ(processes->world(), kWorld);
        EXPECT_EQ(processes->share(rank == 0 ? "first" : "other one", "a text"), "first");
        const std::vector<std::string> all =
            processes->gather(std::string(static_cast<std::size_t>(rank), 'x'), "texts");
        EXPECT_EQ(all, (std::vector<std::string>{"", "x", "xx"}));
        EXPECT_EQ(processes->gather("", "nothing"), (std::vector<std::string>(3)));
        std::array values = {1.0, 0.5 * rank};
        for (const Pace pace : {Pace::kStep, Pace::kOwn}) processes->sum(values, pace, "numbers");
        EXPECT_EQ(values, (std::array{9.0, 4.5}));
      } catch (const Error& error) {
        ADD_FAILURE() << error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Processes, SayWhoWaitedForWhat) {
  // Nobody is there.
  const Meeting nowhere{.rank = 1, .world = 2, .port = testing::free_port(), .timeout = std::chrono::milliseconds(100)};
  EXPECT_TRUE(refuses([&] { load_torch_processes(nowhere); }, "rank 1 of 2 cannot meet the others at 127.0.0.1:"));
  // The others do not come.
  Meeting waiting = nowhere;
  waiting.rank = 0;
  EXPECT_TRUE(
      refuses([&] { load_torch_processes(waiting); }, "rank 0 of 2 waited for the others to come to 127.0.0.1:"));
  // The port is somebody else's.
  const auto other = load_torch_processes({.port = waiting.port});
  EXPECT_TRUE(refuses([&] { load_torch_processes(waiting); }, "is the port taken?"));
  EXPECT_EQ(other->world(), 1);
}

TEST(Trainer, RefusesWhatDoesNotFit) {
  const Real real;
  TrainingStart start = real.start();
  start.weights.erase("head.fc.bias");
  EXPECT_TRUE(refuses([&] { load_torch_trainer({}, start); }, "head.fc.bias"));
  const auto trainer = load_torch_trainer({}, real.start());
  TrainingBatch batch = real.batch(0, 4);
  batch.targets = Tensor::zeros({DType::kF32, {4, 5}});
  EXPECT_TRUE(refuses([&] { trainer->step(std::array{batch}, 1e-3); }, "targets must be [4,4], got [4,5]"));
  const TrainerState before = trainer->state();
  TrainerState state = before;
  state.weights.at("head.fc.bias") = Tensor::of(std::vector<float>{1, 2, 3, 4}, {4});
  state.first.clear();
  EXPECT_TRUE(refuses([&] { trainer->restore(state); }, "first moments"));
  EXPECT_TRUE(same_bits(trainer->state().weights, before.weights));
}

}  // namespace
}  // namespace weft
