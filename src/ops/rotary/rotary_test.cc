#include "ops/rotary/rotary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// A cosine and a sine are each two products of two rounded numbers: 4 roundings of numbers up to 1. An element of the
// result is two products with these, 6 roundings in all of at most 2^-24 of x each, from two channels; and since a turn
// keeps lengths the largest element of the result is no smaller than that of x over √2.
constexpr double kTolerance = 2 * 1.5 * 6 * 0x1p-24;

// RMT's and RetNet's angles: 10000^(−j/(D/2 − 1)) for both channels of pair j.
Tensor angles(std::int64_t channels) {
  Tensor angle(DType::kF32, {channels});
  const double last = std::max(channels / 2 - 1.0, 1.0);
  for (std::int64_t i = 0; i < channels; ++i) {
    angle.mutable_data<float>()[static_cast<std::size_t>(i)] =
        static_cast<float>(std::pow(10000, -static_cast<double>(i / 2) / last));
  }
  return angle;
}

void check(const Shape& x, const Tensor& angle, double tolerance = kTolerance) {
  check_kernel({.name = fmt::format("{} heads of {}", x, angle.shape()[0]),
                .operation = Rotary{},
                .inputs = {random_tensor(x, 1), angle},
                .tolerance = tolerance,
                .constant = {false, true}});
}

TEST(Rotary, MatchesTheReference) {
  for (const std::int64_t head : {2, 4, 6, 8, 10, 14, 16, 18, 30, 32, 34, 64}) check({2, 9, 3 * head}, angles(head));
  for (const std::int64_t tokens : {1, 2, 63, 64, 65, 128, 130, 3136}) check({2, tokens, 32}, angles(16));
  check({1, 196, 256}, angles(32));
  check({3, 70, 24}, random_tensor({24}, 2));  // another angle for each channel: no turn, and lengths change
}

TEST(Rotary, TakesWhatHasNoElements) {
  check({0, 4, 8}, angles(4));
  check({2, 0, 8}, angles(4));
  check({2, 4, 0}, angles(4));
}

// Far along, t·angle in f32 would be off by up to 2^-24·t = 0.06 radians.
TEST(Rotary, IsExactFarAlong) { check({1, 1'000'000, 2}, random_tensor({2}, 1, 0, 0.7F)); }

// By hand: a quarter of a turn for each token.
TEST(Rotary, Turns) {
  Tensor x(DType::kF64, {1, 3, 2});
  Tensor angle(DType::kF64, {2});
  for (std::size_t token = 0; token < 3; ++token) {
    x.mutable_data<double>()[2 * token] = 3;
    x.mutable_data<double>()[2 * token + 1] = 4;
  }
  angle.mutable_data<double>()[0] = angle.mutable_data<double>()[1] = std::acos(0.0);
  Tensor y(DType::kF64, {1, 3, 2});
  reference(Rotary{}, std::array{x, angle}, std::span(&y, 1));
  const std::array want{3.0, 4.0, -4.0, 3.0, -3.0, -4.0};
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(y.data<double>()[i], want[i], 1e-15);
}

// What makes it a relative position: the product of a query at p and a key at q depends on p − q only.
TEST(Rotary, ProductsDependOnDistances) {
  constexpr std::size_t kTokens = 20, kChannels = 6;
  const Tensor angle = angles(kChannels).to(DType::kF64);
  const auto turned = [&](std::uint64_t seed) {  // one token, at every position
    const Tensor token = random_tensor({kChannels}, seed).to(DType::kF64);
    Tensor x(DType::kF64, {1, kTokens, kChannels}), y(DType::kF64, {1, kTokens, kChannels});
    for (std::size_t i = 0; i < kTokens * kChannels; ++i) {
      x.mutable_data<double>()[i] = token.data<double>()[i % kChannels];
    }
    reference(Rotary{}, std::array{x, angle}, std::span(&y, 1));
    return y;
  };
  const Tensor q = turned(1), k = turned(2);
  const auto product = [&](std::size_t at_q, std::size_t at_k) {
    double sum = 0;
    for (std::size_t i = 0; i < kChannels; ++i) {
      sum += q.data<double>()[at_q * kChannels + i] * k.data<double>()[at_k * kChannels + i];
    }
    return sum;
  };
  EXPECT_NEAR(product(7, 3), product(19, 15), 1e-13);
  EXPECT_NEAR(product(0, 5), product(14, 19), 1e-13);
  EXPECT_GT(std::abs(product(7, 3) - product(7, 4)), 1e-3);
}

TEST(Rotary, RefusesWhatDoesNotFit) {
  const auto error_of = [](const std::vector<Shape>& shapes) { return testing::infer_error(Rotary{}, shapes); };
  EXPECT_EQ(error_of({{2, 5, 12}, {4}}), "no error");
  EXPECT_EQ(error_of({{2, 5, 12}}), "[rotary] takes x and angle, got 1 inputs");
  EXPECT_EQ(error_of({{5, 12}, {4}}), "[rotary] x must be [B,T,C], got [5,12]");
  EXPECT_EQ(error_of({{2, 5, 12}, {3}}), "[rotary] angle must be [D], D even and a divisor of 12 channels, got [3]");
  EXPECT_EQ(error_of({{2, 5, 12}, {8}}), "[rotary] angle must be [D], D even and a divisor of 12 channels, got [8]");
  EXPECT_EQ(error_of({{2, 5, 12}, {0}}), "[rotary] angle must be [D], D even and a divisor of 12 channels, got [0]");
  EXPECT_EQ(error_of({{2, 5, 12}, {2, 2}}),
            "[rotary] angle must be [D], D even and a divisor of 12 channels, got [2,2]");
}

}  // namespace
}  // namespace weft
