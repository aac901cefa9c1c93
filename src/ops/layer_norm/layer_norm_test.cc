#include "ops/layer_norm/layer_norm.h"

#include <gtest/gtest.h>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// Mean and variance are sums of C terms in at least four chains: for C ≤ 4096 their error is a few dozen half-ulps at
// worst; the rest is a handful of roundings.
constexpr double kTolerance = 64 * 0x1p-24;

void check(Shape shape, float eps = 1e-5F, float shift = 0, double tolerance = kTolerance) {
  const std::int64_t c = shape[-1];
  check_kernel({.name = fmt::format("{}{:+}", shape, shift),
                .operation = LayerNorm{.eps = eps},
                .inputs = {random_tensor(shape, 1, 1, shift), random_tensor({c}, 2, 0.5F, 1), random_tensor({c}, 3)},
                .tolerance = tolerance});
}

TEST(LayerNorm, MatchesTheReference) {
  for (const std::int64_t c : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 4096}) check({3, c});
  for (const std::int64_t rows : {0, 1, 85, 86, 1000}) check({rows, 192});
  check({2, 196, 192});
  check({2, 49, 26}, 1e-6F);
  check({8});
}

// The variance of 1000 ± 1 survives, as it would not in E[x²] − E[x]². An element of x is known to 2^-24·1000 only, and
// so is its difference to the mean, which is the error of a result of size about 1; eight times for the sums.
TEST(LayerNorm, KeepsASmallVarianceOnALargeMean) { check({5, 192}, 1e-5F, 1000, 8 * 1000 * 0x1p-24); }

TEST(LayerNorm, NormalisesAConstantRowToBeta) {
  check_kernel({.name = "constant",
                .operation = LayerNorm{},
                .inputs = {random_tensor({3, 40}, 1, 0, 2), random_tensor({40}, 2), random_tensor({40}, 3)},
                .tolerance = kTolerance});
}

TEST(LayerNorm, DeclaresItsParameters) {
  Graph graph("toy");
  const Value y = layer_norm(graph.input("x", {DType::kF32, {2, 5, 3}}), Scope(graph)["ln1"]);
  EXPECT_EQ(y.shape(), (Shape{2, 5, 3}));
  ASSERT_EQ(graph.parameters().size(), 2U);
  EXPECT_EQ(graph.value(graph.parameters()[0]).name, "ln1.weight");
  EXPECT_EQ(graph.value(graph.parameters()[1]).name, "ln1.bias");
  std::vector<float> values(3);
  std::mt19937_64 random;
  graph.value(graph.parameters()[0]).initializer(values, random);
  EXPECT_EQ(values, (std::vector<float>{1, 1, 1}));
  graph.value(graph.parameters()[1]).initializer(values, random);
  EXPECT_EQ(values, (std::vector<float>{0, 0, 0}));
}

TEST(LayerNorm, RefusesShapesThatDoNotFit) {
  const auto error_of = testing::infer_error<LayerNorm>;
  EXPECT_EQ(error_of({}, {{2, 3}, {3}}), "[layer_norm] takes x, gamma and beta, got 2 inputs");
  EXPECT_EQ(error_of({}, {{}, {1}, {1}}), "[layer_norm] x must be [...,C], got []");
  EXPECT_EQ(error_of({}, {{2, 3}, {2}, {3}}), "[layer_norm] gamma must be [C]=[3], got [2]");
  EXPECT_EQ(error_of({}, {{2, 3}, {3}, {1, 3}}), "[layer_norm] beta must be [C]=[3], got [1,3]");
  EXPECT_EQ(error_of({.eps = -1}, {{2, 3}, {3}, {3}}), "[layer_norm] eps must be at least 0, got -1");
}

}  // namespace
}  // namespace weft
