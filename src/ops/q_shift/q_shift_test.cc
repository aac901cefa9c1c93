#include "ops/q_shift/q_shift.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

void check(std::int64_t batch, std::int64_t channels, const QShift& op) {
  const Shape shape{batch, std::int64_t{op.height} * op.width, channels};
  check_kernel({.name = shape.str(), .operation = op, .inputs = {random_tensor(shape, 1)}, .tolerance = 0});  // copies
}

TEST(QShift, MatchesTheReference) {
  for (const std::int64_t c : {0, 1, 2, 3, 4, 5, 22, 26, 192}) check(2, c, {.height = 5, .width = 7});
  check(2, 192, {.height = 14, .width = 14});
  check(1, 192, {.height = 37, .width = 19});
  check(3, 22, {.height = 7, .width = 5, .pixels = 2, .gamma = 0.125});
  check(1, 26, {.height = 4, .width = 6, .pixels = 0});
  check(1, 26, {.height = 4, .width = 6, .gamma = 0});
  check(0, 26, {.height = 4, .width = 6});
  check(2, 26, {.height = 0, .width = 6});
}

TEST(QShift, FillsWithZerosWhenTheShiftLeavesTheGrid) {
  // A share of 1/8 leaves half of the channels in place.
  check(2, 16, {.height = 1, .width = 1, .pixels = 1, .gamma = 0.125});
  check(2, 16, {.height = 3, .width = 4, .pixels = 3, .gamma = 0.125});
  check(2, 16, {.height = 3, .width = 4, .pixels = std::numeric_limits<int>::max(), .gamma = 0.125});
}

TEST(QShift, CutsTheChannelsWhereTheOfficialCodeDoes) {
  EXPECT_EQ(QShift{}.cuts(26), (std::array<std::int64_t, 5>{0, 6, 13, 19, 26}));
  EXPECT_EQ(QShift{.gamma = 0.125}.cuts(22), (std::array<std::int64_t, 5>{0, 2, 5, 8, 11}));
  EXPECT_EQ(QShift{}.cuts(192), (std::array<std::int64_t, 5>{0, 48, 96, 144, 192}));
  EXPECT_EQ(QShift{.gamma = 0.1}.cuts(3),
            (std::array<std::int64_t, 5>{0, 0, 0, 0, 1}));  // 3·0.1·4 = 1.2000000000000002
}

// By hand: a 2 × 2 grid of the tokens 1 to 4, five channels alike.
TEST(QShift, TakesEachGroupFromItsNeighbour) {
  std::vector<double> values;
  for (const double token : {1, 2, 3, 4}) values.insert(values.end(), 5, token);
  Tensor x(DType::kF64, {1, 4, 5});
  std::ranges::copy(values, x.mutable_data<double>().begin());
  Tensor y(DType::kF64, {1, 4, 5});
  reference(QShift{.height = 2, .width = 2, .gamma = 0.2}, std::span(&x, 1), std::span(&y, 1));
  const std::vector<double> want = {
      0, 2, 0, 3, 1,  //
      1, 0, 0, 4, 2,  //
      0, 4, 1, 0, 3,  //
      3, 0, 2, 0, 4,  //
  };
  EXPECT_TRUE(std::ranges::equal(y.data<double>(), want));
}

TEST(QShift, RefusesWhatDoesNotFit) {
  const auto error_of = [](const QShift& op, Shape x) { return testing::infer_error(op, {std::move(x)}); };
  const QShift grid{.height = 2, .width = 3};
  EXPECT_EQ(error_of(grid, {1, 6, 4}), "no error");
  EXPECT_EQ(error_of(grid, {1, 5, 4}), "[q_shift] x must be [B,T,C]=[B,6,C] for a grid of 2 x 3, got [1,5,4]");
  EXPECT_EQ(error_of(grid, {6, 4}), "[q_shift] x must be [B,T,C]=[B,6,C] for a grid of 2 x 3, got [6,4]");
  EXPECT_EQ(error_of({.height = -2, .width = -3}, {1, 6, 4}), "[q_shift] the grid must not be negative, got -2 x -3");
  EXPECT_EQ(error_of({.height = 2, .width = 3, .pixels = -1}, {1, 6, 4}),
            "[q_shift] pixels must be at least 0, got -1");
  EXPECT_EQ(error_of({.height = 2, .width = 3, .gamma = 0.26}, {1, 6, 4}),
            "[q_shift] gamma must be from 0 to 1/4, got 0.26");
  EXPECT_EQ(error_of({.height = 2, .width = 3, .gamma = std::numeric_limits<double>::quiet_NaN()}, {1, 6, 4}),
            "[q_shift] gamma must be from 0 to 1/4, got nan");
}

}  // namespace
}  // namespace weft
