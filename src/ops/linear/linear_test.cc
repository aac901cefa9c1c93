#include "ops/linear/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/plan.h"
#include "graph/evaluate.h"
#include "kernel/testing/product_types.h"
#include "ops/elementwise/elementwise.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;
using testing::relative_error;

// Sums of K products in f32: the error grows like √K half-ulps of partial sums; 64 half-ulps cover K ≤ 4096.
constexpr double kTolerance = 64 * 0x1p-24;

void check(std::int64_t rows, std::int64_t k, std::int64_t n, bool bias) {
  std::vector<Tensor> inputs = {random_tensor({rows, k}, 1), random_tensor({n, k}, 2)};
  if (bias) inputs.push_back(random_tensor({n}, 3));
  check_kernel({.name = fmt::format("{}x{}x{}{}", rows, k, n, bias ? "+bias" : ""),
                .operation = Linear{},
                .inputs = inputs,
                .tolerance = kTolerance,
                .constant = {false, true, true}});
}

TEST(Linear, MatchesTheReference) {
  for (const std::int64_t rows : {1, 2, 15, 16, 17, 33, 196, 257}) {
    check(rows, 24, 31, false);
    check(rows, 7, 96, true);
  }
  check(1, 1, 1, true);
  check(50, 768, 192, false);
  check(0, 5, 3, true);
}

TEST(Linear, KeepsTheLeadingAxes) {
  const std::vector<TensorType> in = {{DType::kF32, {2, 5, 3}}, {DType::kF32, {4, 3}}};
  EXPECT_EQ(infer(Linear{}, in)[0].shape, (Shape{2, 5, 4}));
  EXPECT_EQ(macs(Linear{}, in), 2 * 5 * 3 * 4);
}

TEST(Linear, RefusesShapesThatDoNotFit) {
  Graph graph("toy");
  const Value x = graph.input("x", {DType::kF32, {2, 5}});
  const Scope scope(graph, "head");
  const auto guard = scope.enter();
  try {
    linear(x, graph.constant(random_tensor({4, 3}, 1)));
    FAIL() << "no error";
  } catch (const ShapeError& error) {
    EXPECT_STREQ(error.what(), "[linear] x must be [...,K]=[...,3] for weight [4,3], got [2,5] (at toy/head)");
  }
  EXPECT_THROW(linear(x, graph.constant(random_tensor({4, 5}, 1)), graph.constant(random_tensor({5}, 1))), ShapeError);
}

// ---- few rows: columns on several threads ----

struct FewRows {
  std::int64_t rows, k, n;
  bool bias, squared;
};

std::string name_of(const FewRows& c) {
  return fmt::format("{}x{}x{}{}{}", c.rows, c.k, c.n, c.bias ? " bias" : "", c.squared ? " squared" : "");
}

// A graph of one linear layer through the engine, which encodes and decodes around the product. `stored`: the element
// type of the weight.
std::vector<Tensor> run_layer(const FewRows& c, DType dtype, int threads, DType stored = DType::kF32) {
  Graph graph("layer");
  const Value x = graph.input("x", {DType::kF32, {c.rows, c.k}});
  const Scope s(graph);
  const Value weight = s.param("weight", {c.n, c.k}, init::constant(0));
  const Value plain = c.bias ? linear(x, weight, s.param("bias", {c.n}, init::constant(0))) : linear(x, weight);
  graph.output("y", c.squared ? squared_relu(plain) : plain);
  const Tensor rounded = random_tensor({c.n, c.k}, 2).to(DType::kBF16).to(DType::kF16);  // in all of the three types
  Weights weights{{"weight", rounded.to(stored)}};
  if (c.bias) weights.emplace("bias", random_tensor({c.n}, 3));
  const Tensor input = random_tensor({c.rows, c.k}, 1);
  const Workers workers(threads);
  const Plan plan(graph, weights, workers, std::make_shared<PackCache>(), dtype);
  const bool shared_out = std::ranges::any_of(
      plan.steps(), [](const Plan::Step& step) { return step.kernel->name() == "onednn:linear_columns"; });
  const std::int64_t bytes = c.n * c.k * static_cast<std::int64_t>(size_of(dtype));
  EXPECT_EQ(shared_out, threads > 1 && c.rows <= 16 && bytes >= 4 << 20);
  Plan::Context context(plan);
  std::vector<Tensor> results{Tensor(DType::kF32, {c.rows, c.n})};
  std::ranges::fill(results[0].mutable_data<float>(), std::numeric_limits<float>::quiet_NaN());
  const std::byte* const in = input.raw();
  std::byte* const out = results[0].mutable_raw();
  plan.run({&in, 1}, {&out, 1}, context, workers);
  Weights wide{{"weight", rounded.to(DType::kF32)}};
  if (c.bias) wide.emplace("bias", weights.at("bias"));
  results.push_back(evaluate_reference(graph, wide, {&input, 1})[0]);
  return results;
}

// Of the operands' roundings as derived in verify/rounding.h; squaring doubles relative errors.
double few_rows_tolerance(const FewRows& c, DType dtype) {
  if (dtype == DType::kF32) return (c.squared ? 2 : 1) * kTolerance;
  const double operand =
      dtype == DType::kBF16 ? 0x1p-8 / std::sqrt(3.0) : std::sqrt(2 * std::log(static_cast<double>(c.k)) / 12) / 127;
  // The largest of some thousand normal errors is 4 of their root mean squares; the largest result is so as well.
  return (c.squared ? 2 : 1) * 2 * std::sqrt(2.0) * operand;
}

TEST(Linear, OfFewRowsIsTheSameOnAnyNumberOfThreads) {
  for (const auto& [k, n] : {std::pair(840, 5027), std::pair(1100, 127)}) {
    for (const std::int64_t rows : {1, 7}) {
      for (const auto& [bias, squared] : {std::pair(false, false), std::pair(true, true)}) {
        const FewRows c{rows, k, n, bias, squared};
        for (const DType dtype : testing::product_types()) {
          SCOPED_TRACE(fmt::format("{} {}", name_of(c), weft::name_of(dtype)));
          const std::vector<Tensor> single = run_layer(c, dtype, 1);
          EXPECT_LE(relative_error(single[0], single[1]), few_rows_tolerance(c, dtype));
          for (const int threads : {2, 7}) {
            const Tensor got = run_layer(c, dtype, threads)[0];
            // The same terms, rounded alike, perhaps summed in another order.
            EXPECT_LE(relative_error(got, single[0]), (squared ? 2 : 1) * kTolerance) << threads;
          }
        }
      }
    }
  }
}

TEST(Linear, TakesWeightsAsTheyAreStored) {
  for (const FewRows& c : {FewRows{1, 4100, 1030, true, false}, FewRows{40, 256, 1000, false, false}}) {
    for (const DType dtype : testing::product_types()) {
      for (const int threads : {1, 2}) {
        const Tensor want = run_layer(c, dtype, threads)[0];
        for (const DType stored : {DType::kBF16, DType::kF16}) {
          const Tensor got = run_layer(c, dtype, threads, stored)[0];
          EXPECT_TRUE(std::ranges::equal(got.data<float>(), want.data<float>())) << weft::name_of(stored);
        }
      }
    }
  }
}

}  // namespace
}  // namespace weft
