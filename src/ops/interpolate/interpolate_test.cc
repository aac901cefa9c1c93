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
// Antialiased, a shrinking grid has up to 2·2·s + 1 products along an axis: 14 in the cases, for s = 13/4; they are
// rounded as those above, and the largest element of x is at most four times that of the result.
constexpr double kAntialiasTolerance = 40 * 0x1p-24 * (2 * 14 + 2) / 10.0 * 2;

constexpr auto kBilinear = InterpolateMode::kBilinear;
constexpr auto kBicubic = InterpolateMode::kBicubic;
constexpr auto kAntialias = InterpolateMode::kBicubicAntialias;

void check(const Shape& shape, int out_h, int out_w) {
  for (const InterpolateMode mode : {kBilinear, kBicubic, kAntialias}) {
    check_kernel({.name = shape.str(),
                  .operation = Interpolate{.mode = mode, .out_h = out_h, .out_w = out_w},
                  .inputs = {random_tensor(shape, 1)},
                  .tolerance = mode == kAntialias ? kAntialiasTolerance : kTolerance});
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

// By hand: at a quarter the weights with A = −1/2 are −9/128, 111/128, 29/128 and −3/128, of which only those within
// the grid remain.
TEST(Interpolate, FollowsPyTorchsAntialiasing) {
  const std::vector<double> grown = along(kAntialias, {0, 140}, 4);
  ASSERT_EQ(grown.size(), 4U);
  EXPECT_NEAR(grown[0], 140 * -9.0 / (111 - 9), 1e-12);
  EXPECT_NEAR(grown[1], 140 * 29.0 / (111 + 29), 1e-12);
  EXPECT_NEAR(grown[2], 140 * 111.0 / (111 + 29), 1e-12);
  EXPECT_NEAR(grown[3], 140 * 111.0 / (111 - 9), 1e-12);
  // Halved, a sample in the middle has the eight weights of k(d/2): those of the distances 1/4, 3/4, 5/4, 7/4.
  const double near = 111.0 / 128;
  const std::vector<double> weights = {near, 29.0 / 128, -9.0 / 128, -3.0 / 128};
  double sum = 0;
  for (const double weight : weights) sum += 2 * weight;
  std::vector<double> spike(12, 0.0);
  for (std::size_t i = 0; i < 4; ++i) {
    spike.assign(12, 0.0);
    spike[5 + i] = 1;
    EXPECT_NEAR(along(kAntialias, spike, 6)[2], weights[i] / sum, 1e-12) << i;
  }
}

TEST(Interpolate, KeepsAGridOfTheSameSize) {
  const std::vector<double> x = {3, 1, 4, 1, 5};
  EXPECT_EQ(along(kBilinear, x, 5), x);
  EXPECT_EQ(along(kBicubic, x, 5), x);
  EXPECT_EQ(along(kAntialias, x, 5), x);
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
