#include "ops/involution/involution.h"

#include <gtest/gtest.h>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// Sums of K ≤ 121 products in f32: the error grows like √K half-ulps of partial sums.
constexpr double kTolerance = 32 * 0x1p-24;

void check(const Shape& x, std::int64_t groups, int kernel_size) {
  const Involution op{.kernel_size = kernel_size};
  check_kernel({.name = fmt::format("{} in {} groups", x, groups),
                .operation = op,
                .inputs = {random_tensor(x, 1), random_tensor({x[0], x[1], x[2], groups * op.taps()}, 2)},
                .tolerance = kTolerance});
}

TEST(Involution, MatchesTheReference) {
  for (const auto& [channels, groups] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {1, 1}, {3, 1}, {4, 4}, {12, 4}, {16, 2}, {17, 17}, {30, 2}, {33, 11}, {64, 64}, {96, 32}, {130, 5}}) {
    check({2, 4, 5, channels}, groups, 3);
  }
  for (const int k : {1, 5, 7, 11}) check({1, 9, 13, 12}, 4, k);
  check({1, 14, 14, 96}, 32, 7);
  check({2, 3, 2, 256}, 32, 7);  // less than a kernel
  check({1, 1, 1, 6}, 3, 7);
  check({0, 4, 5, 6}, 3, 3);
  check({2, 0, 5, 6}, 3, 3);
}

// By hand: a row of three pixels of two channels, each a group of its own.
TEST(Involution, EachPlaceHasItsOwnKernels) {
  const auto tensor = [](Shape shape, const std::vector<double>& values) {
    Tensor result(DType::kF64, std::move(shape));
    std::ranges::copy(values, result.mutable_data<double>().begin());
    return result;
  };
  std::vector<double> kernels(3 * 2 * 9);
  kernels[0 * 18 + 0 * 9 + 5] = 2;   // place 0, group 0: twice the right neighbour
  kernels[1 * 18 + 1 * 9 + 3] = -1;  // place 1, group 1: minus the left one
  kernels[2 * 18 + 0 * 9 + 4] = 1;   // place 2, group 0: itself,
  kernels[2 * 18 + 0 * 9 + 5] = 9;   // and nothing from outside
  const std::vector<Tensor> in = {tensor({1, 1, 3, 2}, {1, 10, 2, 20, 3, 30}), tensor({1, 1, 3, 18}, kernels)};
  Tensor y(DType::kF64, {1, 1, 3, 2});
  reference(Involution{.kernel_size = 3}, in, std::span(&y, 1));
  EXPECT_TRUE(std::ranges::equal(y.data<double>(), std::vector<double>{4, 0, 0, -10, 3, 0}));
  EXPECT_EQ(macs(Involution{.kernel_size = 3}, std::vector{in[0].type(), in[1].type()}), 6 * 9);
}

TEST(Involution, RefusesWhatDoesNotFit) {
  const auto error_of = testing::infer_error<Involution>;
  const Involution op{.kernel_size = 3};
  EXPECT_EQ(error_of(op, {{1, 4, 5, 6}, {1, 4, 5, 27}}), "no error");
  EXPECT_EQ(error_of(op, {{1, 4, 5, 6}}), "[involution] takes x and weight, got 1 inputs");
  EXPECT_EQ(error_of(op, {{4, 5, 6}, {1, 4, 5, 27}}), "[involution] x must be [B,H,W,C], C ≥ 1, got [4,5,6]");
  for (const Shape& weight : {Shape{1, 4, 5, 28}, Shape{1, 4, 5, 36}, Shape{1, 5, 4, 27}, Shape{1, 4, 5, 0}}) {
    EXPECT_EQ(error_of(op, {{1, 4, 5, 6}, weight}),
              fmt::format("[involution] weight must be [B,H,W,G·k·k]=[1,4,5,G·9], G a divisor of 6, got {}", weight));
  }
  EXPECT_EQ(error_of({.kernel_size = 4}, {{1, 4, 5, 6}, {1, 4, 5, 27}}),
            "[involution] kernel_size must be odd and at least 1, got 4");
}

}  // namespace
}  // namespace weft
