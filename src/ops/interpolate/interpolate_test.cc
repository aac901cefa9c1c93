#include "ops/interpolate/interpolate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// Two sums of four products, ten roundings of half an ulp (2^-24) with the weights'. The weights' magnitudes add up to
// at most 1.375 along an axis, 1.9 along both; the largest element of x is at most twice that of the result.
constexpr double kTolerance = 40 * 0x1p-24;

constexpr auto kBilinear = InterpolateMode::kBilinear;
constexpr auto kBicubic = InterpolateMode::kBicubic;

void check(const Shape& shape, int out_h, int out_w) {
  for (const InterpolateMode mode : {kBilinear, kBicubic}) {
    check_kernel({.name = shape.str(),
                  .operation = Interpolate{.mode = mode, .out_h = out_h, .out_w = out_w},
                  .inputs = {random_tensor(shape, 1)},
                  .tolerance = kTolerance});
  }
}

TEST(Interpolate, MatchesTheReference) {
  for (const std::int64_t c : {0, 1, 3, 4, 5, 8, 9, 15, 16, 17, 26}) check({1, 6, 6, c}, 9, 5);
  check({1, 14, 14, 192}, 32, 24);
  check({1, 14, 14, 192}, 14, 14);
  check({2, 3, 3, 22}, 7, 5);
  check({2, 13, 9, 7}, 4, 3);
  check({3, 1, 1, 5}, 4, 3);
  check({1, 1, 5, 5}, 1, 1);
  check({0, 4, 4, 5}, 8, 8);
}

// Results along a row, of one channel.
std::vector<double> along(InterpolateMode mode, const std::vector<double>& x, int out) {
  Tensor in(DType::kF64, {1, 1, static_cast<std::int64_t>(x.size()), 1});
  std::ranges::copy(x, in.mutable_data<double>().begin());
  Tensor y(DType::kF64, {1, 1, out, 1});
  reference(Interpolate{.mode = mode, .out_h = 1, .out_w = out}, std::span(&in, 1), std::span(&y, 1));
  return {y.data<double>().begin(), y.data<double>().end()};
}

// By hand, with weights that are exact in binary.
TEST(Interpolate, FollowsPyTorchsConventions) {
  EXPECT_EQ(along(kBilinear, {1, 2}, 4), (std::vector<double>{1, 1.25, 1.75, 2}));
  EXPECT_EQ(along(kBilinear, {1, 2, 4, 8}, 2), (std::vector<double>{1.5, 6}));
  // Halfway, the bicubic weights are −3/32, 19/32, 19/32, −3/32; outside, the border repeats.
  EXPECT_EQ(along(kBicubic, {32, 64, 128, 256}, 2), (std::vector<double>{-3 + 19 + 38 - 12, -6 + 76 + 152 - 24}));
  // At a quarter they are −27/256, 225/256, 67/256, −9/256.
  EXPECT_EQ(along(kBicubic, {0, 256}, 4), (std::vector<double>{-27, 67 - 9, 225 - 27, 256 + 27}));
}

TEST(Interpolate, KeepsAGridOfTheSameSize) {
  const std::vector<double> x = {3, 1, 4, 1, 5};
  EXPECT_EQ(along(kBilinear, x, 5), x);
  EXPECT_EQ(along(kBicubic, x, 5), x);
}

TEST(Interpolate, RefusesWhatDoesNotFit) {
  const auto error_of = [](const Interpolate& op, Shape x) { return testing::infer_error(op, {std::move(x)}); };
  EXPECT_EQ(error_of({.out_h = 2, .out_w = 0}, {1, 2, 2, 3}),
            "[interpolate] the result must be at least 1 x 1, got 2 x 0");
  EXPECT_EQ(error_of({}, {2, 2, 3}), "[interpolate] x must be [B,H,W,C] with H and W ≥ 1, got [2,2,3]");
  EXPECT_EQ(error_of({}, {1, 2, 0, 3}), "[interpolate] x must be [B,H,W,C] with H and W ≥ 1, got [1,2,0,3]");
  EXPECT_EQ(Operation(Interpolate{.out_h = 7, .out_w = 5}).attributes(), "mode=bicubic, out_h=7, out_w=5");
}

}  // namespace
}  // namespace weft
