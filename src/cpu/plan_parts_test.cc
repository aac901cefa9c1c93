// Products of few rows, whose columns are shared out: neighbouring ones run at once.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cpu/plan.h"
#include "graph/evaluate.h"
#include "kernel/testing/product_types.h"
#include "ops/ops.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::random_tensor;
using testing::relative_error;

constexpr std::int64_t kChannels = 2048;  // squared as many bytes of int8 weights as are worth a second thread

Value product(Graph& graph, Value x, std::string_view name) {
  const Scope s(graph, std::string(name));
  const auto guard = s.enter();
  return linear(x, s, kChannels, init::constant(0));
}

// Three products of one input, one of what they make, and one that reads but one of them.
struct Branches {
  Graph graph{"branches"};
  Branches() {
    const Value x = graph.input("x", {DType::kF32, {2, kChannels}});
    const Value a = sigmoid(product(graph, x, "a"));
    const Value b = tanh(product(graph, x, "b"));
    const Value c = product(graph, x, "c");
    graph.output("y", product(graph, mul(add(a, b), c), "y"));
    graph.output("c", c);
    graph.output("z", product(graph, c, "z"));
  }
};

struct Chain {
  Graph graph{"chain"};
  Chain() {
    Value x = graph.input("x", {DType::kF32, {2, kChannels}});
    for (const char* name : {"a", "b", "c"}) x = product(graph, x, name);
    graph.output("y", x);
  }
};

Weights random_weights(const Graph& graph) {
  Weights weights;
  std::uint64_t seed = 5;
  for (const int id : graph.parameters()) {  // so that products keep the scale of what they read
    weights.emplace(graph.value(id).name, random_tensor(graph.value(id).type.shape, ++seed, 0.05F));
  }
  return weights;
}

// The products' places, those of one stage together.
std::vector<std::string> stages_of_products(const Graph& graph, DType dtype, int threads) {
  const Workers workers(threads);
  const Plan plan(graph, random_weights(graph), workers, std::make_shared<PackCache>(), dtype);
  std::vector<std::string> stages;
  int last = -1;
  for (const Plan::Step& step : plan.steps()) {
    EXPECT_EQ(step.kernel->by_parts() != nullptr, threads > 1 && step.operation == "linear") << step.operation;
    if (step.operation != "linear") continue;
    if (step.stage != last) stages.emplace_back();
    stages.back() += step.place;
    last = step.stage;
  }
  return stages;
}

std::vector<Tensor> run(const Graph& graph, const Tensor& x, DType dtype, int threads) {
  const Workers workers(threads);
  const Plan plan(graph, random_weights(graph), workers, std::make_shared<PackCache>(), dtype);
  Plan::Context context(plan);
  std::vector<Tensor> results;
  for (int again = 0; again < 2; ++again) {  // the second run finds the first one's leftovers
    results.clear();
    std::vector<std::byte*> out;
    for (const Plan::Port& port : plan.outputs()) out.push_back(results.emplace_back(port.type).mutable_raw());
    const std::byte* const in = x.raw();
    plan.run({&in, 1}, out, context, workers);
  }
  return results;
}

TEST(PlanParts, ProductsThatDoNotReadEachOtherRunTogether) {
  const Branches branches;
  for (const DType dtype : testing::product_types()) {
    SCOPED_TRACE(name_of(dtype));
    const std::vector<std::string> stages = stages_of_products(branches.graph, dtype, 2);
    ASSERT_FALSE(stages.empty());
    EXPECT_EQ(stages.front(), "abc");  // in int8 also, where what decodes each of them stands between them
    std::string all;
    for (const std::string& stage : stages) all += stage;
    std::ranges::sort(all);
    EXPECT_EQ(all, "abcyz");
  }
}

TEST(PlanParts, WhatReadsAProductDoesNotRunWithIt) {
  const Chain chain;
  for (const DType dtype : testing::product_types()) {
    EXPECT_EQ(stages_of_products(chain.graph, dtype, 2), (std::vector<std::string>{"a", "b", "c"})) << name_of(dtype);
  }
}

TEST(PlanParts, GiveWhatOneThreadGives) {
  const Branches branches;
  const Chain chain;
  const Tensor x = random_tensor({2, kChannels}, 3);
  for (const Graph* const graph : {&branches.graph, &chain.graph}) {
    const std::vector<Tensor> want = evaluate_reference(*graph, random_weights(*graph), {&x, 1});
    for (const DType dtype : testing::product_types()) {
      // Of an operand as derived in verify/rounding.h; two in each of three products, one behind the other, and twice
      // that, because the largest of few errors is no root mean square.
      const double operand =
          dtype == DType::kBF16 ? 0x1p-8 / std::sqrt(3.0) : std::sqrt(2 * std::log(double{kChannels}) / 12) / 127;
      const double tolerance = dtype == DType::kF32 ? 64 * 0x1p-24 : 2 * operand * std::sqrt(2.0 * 3);
      for (const int threads : {1, 2, 3, 7}) {
        const std::vector<Tensor> got = run(*graph, x, dtype, threads);
        for (std::size_t i = 0; i < want.size(); ++i) {
          EXPECT_LE(relative_error(got[i], want[i]), tolerance) << name_of(dtype) << ' ' << threads << ' ' << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace weft
