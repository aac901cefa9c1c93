#include "cpu/plan.h"

#include <gtest/gtest.h>

#include <thread>

#include "graph/evaluate.h"
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

}  // namespace
}  // namespace weft
