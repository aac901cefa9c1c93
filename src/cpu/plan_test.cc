#include "cpu/plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "core/half.h"
#include "graph/evaluate.h"
#include "kernel/testing/product_types.h"
#include "ops/ops.h"
#include "ops/testing/op_test.h"
#include "tests/allocations.h"

namespace weft {
namespace {

using testing::random_tensor;
using testing::relative_error;

// A small network with everything a plan must cope with: weights to fold, views, chains to overwrite, values used
// twice, an input that is an output, a constant output and an output given twice.
struct Toy {
  Graph graph{"toy"};
  Weights weights;

  explicit Toy(std::int64_t batch = 2) {
    const Scope s(graph);
    const Value x = graph.input("x", {DType::kF32, {batch, 6, 10}});
    const Value gain = s.param("gain", {10}, init::constant(1));
    const Value folded = scale(sigmoid(gain), 2.0F);  // weight-only: folded
    Value y = layer_norm(x, s["norm"], 1e-5F);
    y = mul(y, folded);
    const Value wide = squared_relu(linear(y, s["up"], 20, init::truncated_normal(0.2F)));
    y = add(y, linear(wide, s["down"], 10, init::truncated_normal(0.2F)));
    const Value flat = reshape(y, {batch * 6, 10});
    const Value gate = sigmoid(flat);
    const Value out = mul(gate, flat);
    (void)tanh(wide);  // needed by nobody
    graph.output("out", reshape(out, {batch, 6, 10}));
    graph.output("same", out);
    graph.output("x", x);
    graph.output("folded", folded);
    graph.output("mean", mean(y, 1));
    std::mt19937_64 random(5);
    for (const int id : graph.parameters()) {
      const Graph::ValueInfo& parameter = graph.value(id);
      weights.emplace(parameter.name, random_tensor(parameter.type.shape, random(), 0.5F));
    }
  }
};

struct Buffers {
  std::vector<Tensor> tensors;
  std::vector<std::byte*> pointers;
  explicit Buffers(const Plan& plan) {
    for (const Plan::Port& port : plan.outputs()) pointers.push_back(tensors.emplace_back(port.type).mutable_raw());
  }
};

TEST(Plan, EqualsTheReference) {
  for (const int threads : {1, 2, 5}) {
    Toy toy;
    const Workers workers(threads);
    const Plan plan(toy.graph, toy.weights, workers, std::make_shared<PackCache>());
    Plan::Context context(plan);
    const Tensor x = random_tensor({2, 6, 10}, 3);
    const std::vector<Tensor> want = evaluate_reference(toy.graph, toy.weights, {&x, 1});
    for (int run = 0; run < 2; ++run) {  // the second run finds the first one's leftovers in the arena
      Buffers out(plan);
      const std::byte* const in = x.raw();
      plan.run({&in, 1}, out.pointers, context, workers);
      for (std::size_t i = 0; i < want.size(); ++i) {
        // Products of 10 and 20 terms and a norm: a few f32 epsilons each.
        EXPECT_LE(relative_error(out.tensors[i], want[i]), 32 * 0x1p-24) << plan.outputs()[i].name;
      }
    }
  }
}

TEST(Plan, FoldsWhatDependsOnWeightsOnlyAndDropsWhatNobodyNeeds) {
  Toy toy;
  const Workers workers(1);
  const Plan plan(toy.graph, toy.weights, workers, std::make_shared<PackCache>());
  std::vector<std::string> operations;
  for (const Plan::Step& step : plan.steps()) operations.push_back(step.operation);
  const std::vector<std::string> expected = {"layer_norm", "mul",     "linear", "linear",  // with squared_relu in it
                                             "add",        "sigmoid", "mul",    "mean"};
  EXPECT_EQ(operations, expected);
}

TEST(Plan, ReusesMemory) {
  // A chain of pointwise steps over one buffer needs that buffer, whatever its length.
  Graph graph("chain");
  Value x = graph.input("x", {DType::kF32, {1000}});
  for (int i = 0; i < 20; ++i) x = scale(sigmoid(x), 2.0F);
  graph.output("y", add(x, x));
  const Workers workers(1);
  const Plan plan(graph, {}, workers, std::make_shared<PackCache>());
  EXPECT_LE(plan.arena_bytes(), 4032U);
}

TEST(Plan, SecondRunAllocatesNothing) {
  // oneDNN books a few small records for each call; weft itself takes no memory, and nobody takes much.
  Toy toy(64);
  const Workers workers(1);
  const Plan plan(toy.graph, toy.weights, workers, std::make_shared<PackCache>());
  Plan::Context context(plan);
  const Tensor x = random_tensor({64, 6, 10}, 3);
  Buffers out(plan);
  const std::byte* const in = x.raw();
  plan.run({&in, 1}, out.pointers, context, workers);
  const tests::AllocationCount count;
  plan.run({&in, 1}, out.pointers, context, workers);
  EXPECT_LE(count.largest(), 1024U);

  Graph graph("no_products");
  const Value y = graph.input("x", {DType::kF32, {64, 6, 10}});
  graph.output("y", mean(mul(sigmoid(y), y), 1));
  const Plan pointwise(graph, {}, workers, std::make_shared<PackCache>());
  Plan::Context pointwise_context(pointwise);
  Buffers pointwise_out(pointwise);
  pointwise.run({&in, 1}, pointwise_out.pointers, pointwise_context, workers);
  const tests::AllocationCount none;
  pointwise.run({&in, 1}, pointwise_out.pointers, pointwise_context, workers);
  EXPECT_EQ(none.calls(), 0U);
}

TEST(Plan, RunsFromSeveralThreadsAtOnce) {
  Toy toy;
  const Workers workers(2);
  const Plan plan(toy.graph, toy.weights, workers, std::make_shared<PackCache>());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Plan::Context context(plan);
      const Tensor x = random_tensor({2, 6, 10}, static_cast<std::uint64_t>(t));
      const std::vector<Tensor> want = evaluate_reference(toy.graph, toy.weights, {&x, 1});
      for (int run = 0; run < 20; ++run) {
        Buffers out(plan);
        const std::byte* const in = x.raw();
        plan.run({&in, 1}, out.pointers, context, workers);
        EXPECT_LE(relative_error(out.tensors[0], want[0]), 32 * 0x1p-24);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Plan, TellsMissingAndMisshapenWeights) {
  Toy toy;
  const Workers workers(1);
  Weights weights = toy.weights;
  weights.erase("gain");
  EXPECT_THROW(Plan(toy.graph, weights, workers, std::make_shared<PackCache>()), WeightError);
  weights.emplace("gain", random_tensor({11}, 1));
  EXPECT_THROW(Plan(toy.graph, weights, workers, std::make_shared<PackCache>()), WeightError);
}

// ---- products in fewer bits ----

// Errors of root mean square per operand and product as derived in verify/rounding.h (rows of 10 and 20 elements), in
// quadrature, times 2 because the largest of few results is no root mean square. `products` counts a product before a
// squared ReLU four times: there is no residual stream here beside which it would be small, and x² has twice the
// relative error of x, four times the square of it.
double tolerance_of(DType dtype, int products) {
  const double operand = dtype == DType::kBF16 ? 0x1p-8 / std::sqrt(3.0) : std::sqrt(2 * std::log(20.0) / 12) / 127;
  return 2 * operand * std::sqrt(2.0 * products);
}

constexpr int kSquared = 4;

std::vector<Tensor> run_once(const Graph& graph, const Weights& weights, const Tensor& x, DType dtype,
                             int threads = 2) {
  const Workers workers(threads);
  const Plan plan(graph, weights, workers, std::make_shared<PackCache>(), dtype);
  Plan::Context context(plan);
  Buffers out(plan);
  const std::byte* const in = x.raw();
  plan.run({&in, 1}, out.pointers, context, workers);
  return out.tensors;
}

Weights random_weights(const Graph& graph) {
  Weights weights;
  std::mt19937_64 random(5);
  for (const int id : graph.parameters()) {
    const Graph::ValueInfo& parameter = graph.value(id);
    weights.emplace(parameter.name, random_tensor(parameter.type.shape, random(), 0.5F));
  }
  return weights;
}

int count_steps(const Graph& graph, DType dtype, std::string_view operation) {
  const Workers workers(1);
  const Plan plan(graph, random_weights(graph), workers, std::make_shared<PackCache>(), dtype);
  return static_cast<int>(std::ranges::count(plan.steps(), operation, &Plan::Step::operation));
}

// Every output of the graph in bf16 and int8 against the reference, and f32 beside it.
void expect_near_reference(const Graph& graph, const Tensor& x, int products) {
  const Weights weights = random_weights(graph);
  const std::vector<Tensor> want = evaluate_reference(graph, weights, {&x, 1});
  for (const DType dtype : testing::product_types()) {
    SCOPED_TRACE(name_of(dtype));
    const std::vector<Tensor> got = run_once(graph, weights, x, dtype);
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double tolerance = dtype == DType::kF32 ? 64 * 0x1p-24 : tolerance_of(dtype, products);
      EXPECT_LE(relative_error(got[i], want[i]), tolerance) << graph.outputs()[i].name;
    }
  }
}

// One row of a product's operand as its encoding rounds it, in double. `weight`: on a scale of its own about 0.
void round_row(std::span<double> row, DType dtype, bool weight) {
  const auto [least, largest] = std::ranges::minmax(row);
  const double low = weight ? 0 : least;
  const double step = weight ? std::max(-least, largest) / 127 : (largest - least) / 255;
  for (double& x : row) {
    if (dtype == DType::kBF16) {
      x = to_float(to_bfloat16(static_cast<float>(x)));
    } else if (step > 0) {
      x = low + step * std::nearbyint((x - low) / step);
    }
  }
}

// The reference with the operands of linear layers rounded: what the plan should compute but for f32's own roundings.
std::vector<Tensor> evaluate_rounded(const Graph& graph, const Weights& weights, const Tensor& x, DType dtype) {
  std::vector<Tensor> values(graph.values().size());
  const auto at = [&](int id) -> Tensor& { return values[static_cast<std::size_t>(id)]; };
  at(graph.inputs()[0]) = x.to(DType::kF64);
  for (const int id : graph.parameters()) at(id) = weights.at(graph.value(id).name).to(DType::kF64);
  for (const Graph::Node& node : graph.nodes()) {
    std::vector<Tensor> in, out;
    for (const int id : node.inputs) in.push_back(at(id));
    for (const int id : node.outputs) out.emplace_back(DType::kF64, graph.value(id).type.shape);
    if (node.operation.as<Linear>()) {
      for (std::size_t i = 0; i < 2; ++i) {
        in[i] = in[i].clone();
        const auto all = in[i].mutable_data<double>();
        const auto k = static_cast<std::size_t>(in[i].shape()[-1]);
        for (std::size_t row = 0; row < all.size(); row += k) round_row(all.subspan(row, k), dtype, i == 1);
      }
    }
    node.operation.reference(in, out);
    for (std::size_t i = 0; i < out.size(); ++i) at(node.outputs[i]) = out[i];
  }
  std::vector<Tensor> outputs;
  for (const Graph::Output& output : graph.outputs()) outputs.push_back(at(output.value));
  return outputs;
}

double distance(const Tensor& a, const Tensor& b) {
  const Tensor a64 = a.to(DType::kF64);
  const Tensor b64 = b.to(DType::kF64);
  double squares = 0;
  for (std::size_t i = 0; i < a64.data<double>().size(); ++i) {
    squares += std::pow(a64.data<double>()[i] - b64.data<double>()[i], 2);
  }
  return std::sqrt(squares);
}

TEST(Plan, InFewerBitsRoundsWhatItSaysAndNothingElse) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  Toy toy(400);
  const Tensor x = random_tensor({400, 6, 10}, 3);
  const Tensor exact = evaluate_reference(toy.graph, toy.weights, {&x, 1})[0];
  for (const DType dtype : testing::fewer_bits()) {
    const Tensor model = evaluate_rounded(toy.graph, toy.weights, x, dtype)[0];
    const Tensor got = run_once(toy.graph, toy.weights, x, dtype)[0];
    // f32's errors (1e-7) are far below a step (2^-8, 1/255), but now and then one sends a value to the other side of
    // the middle between two steps: one in 10,000, which is off by a step, √12 times the usual error: √(12e-4) = 3.5 %
    // of the distance to the exact result.
    EXPECT_LE(distance(got, model), 0.1 * distance(got, exact)) << name_of(dtype);
    EXPECT_GT(distance(got, exact), 0);
  }
}

TEST(Plan, InFewerBitsIsNearTheReference) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  for (const DType dtype : testing::fewer_bits()) {
    for (const std::int64_t batch : {1, 2, 5}) {
      for (const int threads : {1, 2, 5}) {
        Toy toy(batch);
        const Tensor x = random_tensor({batch, 6, 10}, 3);
        const std::vector<Tensor> want = evaluate_reference(toy.graph, toy.weights, {&x, 1});
        const std::vector<Tensor> got = run_once(toy.graph, toy.weights, x, dtype, threads);
        const std::vector<Tensor> again = run_once(toy.graph, toy.weights, x, dtype, threads);
        for (std::size_t i = 0; i < want.size(); ++i) {
          EXPECT_LE(relative_error(got[i], want[i]), tolerance_of(dtype, kSquared + 1)) << toy.graph.outputs()[i].name;
          EXPECT_EQ(std::memcmp(got[i].raw(), again[i].raw(), got[i].bytes()), 0) << "two runs differ";
        }
        EXPECT_GT(relative_error(got[0], want[0]), 1e-5) << name_of(dtype) << " was not used";
        EXPECT_EQ(relative_error(got[2], x), 0) << "what is no product is exact";
      }
    }
  }
}

// Rows of a tile, many tiles, a last one that is lower; each row of the result is what it is alone.
TEST(Plan, InFewerBitsRowsDoNotDependOnTheirTile) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  for (const DType dtype : testing::fewer_bits()) {
    for (const std::int64_t rows : {1, 5, 1000}) {
      Graph graph("rows");
      const Scope s(graph);
      const Value x = graph.input("x", {DType::kF32, {rows, 10}});
      const Value wide = squared_relu(linear(layer_norm(x, s["norm"], 1e-5F), s["up"], 20, init::constant(0)));
      graph.output("y", add(x, linear(wide, s["down"], 10, init::constant(0))));
      const Weights weights = random_weights(graph);
      const Tensor input = random_tensor({rows, 10}, 4);
      const std::vector<Tensor> want = evaluate_reference(graph, weights, {&input, 1});
      const Tensor single = run_once(graph, weights, input, dtype, 1)[0];
      EXPECT_LE(relative_error(single, want[0]), tolerance_of(dtype, kSquared + 1)) << rows;
      for (const int threads : {2, 5}) {
        const Tensor got = run_once(graph, weights, input, dtype, threads)[0];
        // Another height of tiles may be another of oneDNN's kernels, which sums in another order: a rounding of a
        // result may then fall on the other side, as far as the tolerance.
        EXPECT_LE(relative_error(got, want[0]), tolerance_of(dtype, kSquared + 1))
            << rows << " rows, " << threads << " threads";
      }
    }
  }
}

TEST(Plan, AnActivationIsAbsorbedOnlyWhereNobodyElseWantsItsInput) {
  const auto build = [](Graph& graph, bool view, bool other) {
    const Scope s(graph);
    const Value x = graph.input("x", {DType::kF32, {3, 4, 10}});
    const Value wide = linear(x, s["up"], 20, init::constant(0));
    const Value seen = view ? reshape(wide, {12, 20}) : wide;
    graph.output("y", linear(squared_relu(seen), s["down"], 10, init::constant(0)));
    if (other) graph.output("other", sigmoid(wide));
  };
  for (const bool view : {false, true}) {
    for (const bool other : {false, true}) {
      SCOPED_TRACE(fmt::format("view {}, other {}", view, other));
      Graph graph("absorb");
      build(graph, view, other);
      for (const DType dtype : testing::product_types()) {
        EXPECT_EQ(count_steps(graph, dtype, "squared_relu"), other ? 1 : 0) << name_of(dtype);
      }
      expect_near_reference(graph, random_tensor({3, 4, 10}, 6), kSquared + 1);
    }
  }
}

TEST(Plan, ConsumersShareAnEncodedCopy) {
  Graph graph("shared");
  const Scope s(graph);
  const Value x = graph.input("x", {DType::kF32, {7, 10}});
  const Value y = layer_norm(x, s["norm"], 1e-5F);
  const Value k = linear(y, s["key"], 10, init::constant(0));
  const Value v = linear(y, s["value"], 10, init::constant(0));
  graph.output("out", add(mul(k, v), y));  // y is wanted as it is, too
  for (const DType dtype : testing::fewer_bits()) EXPECT_EQ(count_steps(graph, dtype, "encode"), 1) << name_of(dtype);
  EXPECT_EQ(count_steps(graph, DType::kF32, "encode"), 0);
  expect_near_reference(graph, random_tensor({7, 10}, 8), 2);
}

TEST(Plan, AProductHandsItsResultOnEncoded) {
  Graph graph("chain");
  const Scope s(graph);
  const Value x = graph.input("x", {DType::kF32, {7, 10}});
  const Value hidden = linear(x, s["up"], 20, init::constant(0));
  graph.output("out", linear(hidden, s["down"], 10, init::constant(0)));
  for (const DType dtype : testing::fewer_bits()) EXPECT_EQ(count_steps(graph, dtype, "encode"), 1);  // of x
  expect_near_reference(graph, random_tensor({7, 10}, 8), 2);
}

// A row's scale is one row's: where a view cuts rows anew, what was encoded for the old ones is of no use.
TEST(Plan, RowsCutAnewAreEncodedAnew) {
  Graph graph("cut");
  const Scope s(graph);
  const Value x = graph.input("x", {DType::kF32, {6, 10}});
  const Value wide = linear(x, s["up"], 20, init::constant(0));
  graph.output("halves", linear(reshape(wide, {12, 10}), s["down"], 10, init::constant(0)));
  const Value same = linear(x, s["same"], 10, init::constant(0));
  graph.output("pairs", linear(reshape(same, {3, 20}), s["wide"], 10, init::constant(0)));
  graph.output("both", linear(reshape(x, {3, 20}), s["both"], 10, init::constant(0)));
  expect_near_reference(graph, random_tensor({6, 10}, 8), 2);
}

// Rows do not know of each other: one among many, in a tile of many slices, gives what it gives alone.
TEST(Plan, ARowAmongManyGivesWhatItGivesAlone) {
  const auto network = [](std::int64_t rows, bool normed) {
    auto graph = std::make_unique<Graph>("rows");
    const Scope s(*graph);
    const Value x = graph->input("x", {DType::kF32, {rows, 64}});
    const Value wide = linear(x, s["up"], 256, init::constant(0));
    const Value hidden = normed ? layer_norm(squared_relu(wide), s["norm"], 1e-5F) : gelu(wide);
    graph->output("y", linear(hidden, s["down"], 64, init::constant(0)));
    return graph;
  };
  constexpr std::int64_t kRows = 256;
  const Tensor x = random_tensor({kRows, 64}, 4);
  for (const bool normed : {false, true}) {
    Weights weights;
    std::mt19937_64 random(6);
    const auto all = network(kRows, normed);
    for (const int id : all->parameters()) {
      const Graph::ValueInfo& parameter = all->value(id);
      weights.emplace(parameter.name, random_tensor(parameter.type.shape, random(), 0.2F));
    }
    const auto one = network(1, normed);
    for (const DType dtype : testing::product_types()) {
      const Tensor together = run_once(*all, weights, x, dtype)[0];
      for (std::int64_t row = 0; row < kRows; ++row) {
        const Tensor input = Tensor::of(x.data<float>().subspan(static_cast<std::size_t>(row) * 64, 64), {1, 64});
        const Tensor alone = run_once(*one, weights, input, dtype)[0];
        const auto from = together.data<float>().subspan(static_cast<std::size_t>(row) * 64, 64);
        // Products of other heights may sum in another order: a rounding of one of 255 steps may fall to the other
        // side.
        EXPECT_LE(relative_error(Tensor::of(from, {1, 64}), alone), dtype == DType::kF32 ? 1e-5 : 0x1p-8) << row;
      }
    }
  }
}

// What crosses the stages of a mixing block (the norm, k, v, r, y) is bf16, and the constant; the residual stream is
// not.
TEST(Plan, InFewerBitsWhatLiesBetweenStagesTakesHalfTheMemory) {
  const auto block = [](int side) {
    const std::int64_t tokens = std::int64_t{side} * side, channels = 40;
    auto graph = std::make_unique<Graph>("block");
    const Scope s(*graph);
    const Value x = graph->input("x", {DType::kF32, {1, tokens, channels}});
    const auto vector = [&](const char* name) { return s.param(name, {channels}, init::constant(0)); };
    const auto mixed_by = [&](const char* name, Value a, Value b) {
      return linear(lerp(a, b, vector(fmt::format("mix_{}", name).c_str())), s[name], channels, init::constant(0));
    };
    const Value stream = add(x, s.param("pos_embed", {1, tokens, channels}, init::constant(0)));
    const Value z = layer_norm(stream, s["norm"], 1e-5F);
    const Value shifted = q_shift(z, {.height = side, .width = side});
    const Value k = mixed_by("key", z, shifted), v = mixed_by("value", z, shifted);
    const Value y = mul(sigmoid(mixed_by("receptance", z, shifted)), bi_wkv(k, v, vector("w"), vector("u")));
    const Value out = add(stream, linear(y, s["output"], channels, init::constant(0)));
    graph->output("y", layer_norm(out, s["last"], 1e-5F));
    return graph;
  };
  expect_near_reference(*block(12), random_tensor({1, 144, 40}, 9), 8);

  const Workers workers(1);
  const auto large = block(128);
  const auto arena = [&](DType dtype) {
    return Plan(*large, random_weights(*large), workers, std::make_shared<PackCache>(), dtype).arena_bytes();
  };
  const std::size_t value = 128 * 128 * 40 * sizeof(float);
  // x and four others while the scan's neighbours run; tiles take less than a half.
  EXPECT_LT(arena(DType::kF32), 11 * value / 2);
  EXPECT_GT(arena(DType::kF32), 5 * value);
  for (const DType dtype : testing::fewer_bits()) EXPECT_LT(arena(dtype), 7 * value / 2);
  if (onednn::multiplies_natively(DType::kI8)) {
    EXPECT_EQ(count_steps(*large, DType::kI8, "encode"), 0);
  }
}

// A post-norm stream: no norm reads it, only the shift, a mix and the next sum. Each block adds an eighth of what bf16
// can tell from 1.
TEST(Plan, InFewerBitsAResidualStreamKeepsSmallIncrements) {
  constexpr int kBlocks = 24;
  constexpr float kIncrement = 0x1p-10F;
  const auto filled = [](const Shape& shape, float value) {
    return Tensor::of(std::vector<float>(static_cast<std::size_t>(shape.elements()), value), shape);
  };
  Graph graph("stream");
  Value stream = graph.input("x", {DType::kF32, {1, 4, 8}});
  const Value gamma = graph.constant(filled({8}, 0)), beta = graph.constant(filled({8}, kIncrement));
  const Value mix = graph.constant(filled({8}, 0.5F));
  for (int i = 0; i < kBlocks; ++i) {
    const Value mixed = lerp(stream, q_shift(stream, {.height = 2, .width = 2}), mix);
    stream = add(stream, layer_norm(mixed, gamma, beta, 1e-5F));
  }
  graph.output("y", scale(stream, 1));
  for (const DType dtype : testing::product_types()) {
    const Tensor y = run_once(graph, {}, filled({1, 4, 8}, 1), dtype)[0];
    EXPECT_EQ(y.data<float>()[0], 1 + kBlocks * kIncrement) << name_of(dtype);  // exact in f32
  }
}

// Alone a picture's embedding has all elements of the result, in a batch it repeats.
TEST(Plan, InFewerBitsAPictureDoesNotDependOnItsBatch) {
  const Tensor one = random_tensor({1, 6, 10}, 1);
  Weights weights;
  weights.emplace("pos_embed", random_tensor({1, 6, 10}, 2));
  const auto sum = [&](std::int64_t batch, const Tensor& x, DType dtype) {
    Graph graph("embedded");
    const Value input = graph.input("x", {DType::kF32, {batch, 6, 10}});
    graph.output("y", add(input, Scope(graph).param("pos_embed", {1, 6, 10}, init::constant(0))));
    return run_once(graph, weights, x, dtype)[0];
  };
  std::vector<float> both(one.data<float>().begin(), one.data<float>().end());
  both.insert(both.end(), both.begin(), both.end());
  for (const DType dtype : testing::product_types()) {
    const Tensor alone = sum(1, one, dtype);
    const Tensor together = sum(2, Tensor::of(both, {2, 6, 10}), dtype);
    EXPECT_EQ(std::memcmp(alone.raw(), together.raw(), alone.bytes()), 0) << name_of(dtype);
  }
}

TEST(Plan, ASecondActivationIsNotLost) {
  Graph graph("twice");
  const Value x = graph.input("x", {DType::kF32, {5, 10}});
  const Value z = linear(x, Scope(graph)["up"], 20, init::constant(0));
  graph.output("y", squared_relu(reshape(squared_relu(z), {10, 10})));
  expect_near_reference(graph, random_tensor({5, 10}, 3), 16);  // x⁴ has four times the relative error of x, twice over
}

TEST(Plan, OneWeightInTwoShapesIsRoundedTwice) {
  Graph graph("tied");
  const Value x = graph.input("x", {DType::kF32, {4, 10}});
  const Value w = Scope(graph).param("w", {30, 10}, init::constant(0));
  graph.output("y", linear(x, w));
  graph.output("z", linear(reshape(x, {2, 20}), reshape(w, {15, 20})));
  expect_near_reference(graph, random_tensor({4, 10}, 3), 2);
}

TEST(Plan, InFewerBitsRunsFromSeveralThreadsAtOnce) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  for (const DType dtype : testing::fewer_bits()) {
    Toy toy(40);
    const Workers workers(2);
    const Plan plan(toy.graph, toy.weights, workers, std::make_shared<PackCache>(), dtype);
    const Tensor x = random_tensor({40, 6, 10}, 3);
    const Tensor want = run_once(toy.graph, toy.weights, x, dtype)[0];
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        Plan::Context context(plan);
        for (int run = 0; run < 10; ++run) {
          Buffers out(plan);
          const std::byte* const in = x.raw();
          plan.run({&in, 1}, out.pointers, context, workers);
          EXPECT_EQ(std::memcmp(out.tensors[0].raw(), want.raw(), want.bytes()), 0);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace weft
