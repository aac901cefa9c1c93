#include "ops/batch_norm/batch_norm.h"

#include <gtest/gtest.h>

#include <limits>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// A difference, a rounded factor, a product and a sum, each within half an ulp (2^-24) of at most some times the
// largest result.
constexpr double kTolerance = 8 * 0x1p-24;

Tensor positive(std::int64_t channels) {
  Tensor result = random_tensor({channels}, 5);
  for (float& x : result.mutable_data<float>()) x = x * x + 0.1F;
  return result;
}

void check(const Shape& shape, float eps = 1e-5F) {
  const std::int64_t c = shape[-1];
  check_kernel({.name = shape.str(),
                .operation = BatchNorm{.eps = eps},
                .inputs = {random_tensor(shape, 1), random_tensor({c}, 2), random_tensor({c}, 3), random_tensor({c}, 4),
                           positive(c)},
                .tolerance = kTolerance,
                .constant = {false, true, true, true, true}});
}

TEST(BatchNorm, MatchesTheReference) {
  for (const std::int64_t c : {0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 96}) check({2, 5, c});
  check({2, 14, 14, 192});
  check({7});
  check({0, 5});
  check({3, 5}, 0);
  check({3, 5}, 1e-2F);
}

// By hand: (5 − 1)/√(3 + 1) · 10 + 7.
TEST(BatchNorm, NormalisesByTheGivenStatistics) {
  std::vector<Tensor> in;
  for (const double value : {5, 10, 7, 1, 3}) {
    in.emplace_back(DType::kF64, Shape{1});
    in.back().mutable_data<double>()[0] = value;
  }
  Tensor y(DType::kF64, {1});
  reference(BatchNorm{.eps = 1}, in, std::span(&y, 1));
  EXPECT_EQ(y.data<double>()[0], 27);
}

// The rows 1 and 5: mean 3, variance 4 of the batch, 8 unbiased.
TEST(BatchNorm, TakesTheStatisticsOfTheBatchInTraining) {
  std::vector<Tensor> in = {Tensor(DType::kF64, Shape{2, 1}), Tensor(DType::kF64, Shape{1}),
                            Tensor(DType::kF64, Shape{1})};
  in[0].mutable_data<double>()[0] = 1;
  in[0].mutable_data<double>()[1] = 5;
  in[1].mutable_data<double>()[0] = 10;
  in[2].mutable_data<double>()[0] = 7;
  Tensor y(DType::kF64, {2, 1});
  reference(BatchNorm{.eps = 0}, in, std::span(&y, 1));
  EXPECT_EQ(y.data<double>()[0], -3);
  EXPECT_EQ(y.data<double>()[1], 17);
  Tensor moments(DType::kF64, {2, 1});
  reference(BatchMoments{}, std::span(in).first(1), std::span(&moments, 1));
  EXPECT_EQ(moments.data<double>()[0], 3);
  EXPECT_EQ(moments.data<double>()[1], 8);
}

TEST(BatchNorm, UpdatesItsBuffersInTraining) {
  Graph graph("training", /*training=*/true);
  const Value x = graph.input("x", {DType::kF32, {4, 2, 3}});
  graph.output("y", batch_norm(x, Scope(graph)["bn"]));
  ASSERT_EQ(graph.updates().size(), 2U);
  EXPECT_EQ(graph.value(graph.updates()[0].buffer).name, "bn.running_mean");
  EXPECT_EQ(graph.value(graph.updates()[1].buffer).name, "bn.running_var");
  EXPECT_EQ(graph.parameter_count(), 6);
}

TEST(BatchNorm, RefusesWhatDoesNotFit) {
  const auto error_of = testing::infer_error<BatchNorm>;
  EXPECT_EQ(error_of({}, {{2, 3}, {3}, {3}, {3}, {3}}), "no error");
  EXPECT_EQ(error_of({}, {{2, 3}, {3}, {3}}), "no error");
  EXPECT_EQ(error_of({}, {{1, 3}, {3}, {3}}),
            "[batch_norm] the statistics of a batch want at least 2 values of each channel, got 1 of [1,3]; train on "
            "larger batches");
  EXPECT_EQ(error_of({}, {{2, 3}, {3}, {3}, {3}}),
            "[batch_norm] takes x, weight, bias and, but in training, running_mean and running_var, got 4 inputs");
  EXPECT_EQ(error_of({}, {{}, {3}, {3}, {3}, {3}}), "[batch_norm] x must be [...,C], got a scalar");
  EXPECT_EQ(error_of({}, {{2, 3}, {3}, {3}, {3}, {2}}), "[batch_norm] running_var must be [C]=[3], got [2]");
  EXPECT_EQ(error_of({}, {{2, 3}, {3}, {1, 3}, {3}, {3}}), "[batch_norm] bias must be [C]=[3], got [1,3]");
  EXPECT_EQ(error_of({.eps = -1}, {{2, 3}, {3}, {3}, {3}, {3}}),
            "[batch_norm] eps must be finite and at least 0, got -1");
  EXPECT_EQ(error_of({.eps = std::numeric_limits<float>::quiet_NaN()}, {{2, 3}, {3}, {3}, {3}, {3}}),
            "[batch_norm] eps must be finite and at least 0, got nan");
}

}  // namespace
}  // namespace weft
