#include "ops/linear/linear.h"

#include <gtest/gtest.h>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

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

}  // namespace
}  // namespace weft
