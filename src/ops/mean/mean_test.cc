#include "ops/mean/mean.h"

#include <gtest/gtest.h>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// At most 64 terms in one f32 sum, each addition off by at most half an ulp (2^-24) of a partial sum of |x|; the inputs
// have mean 1 and deviation 1, for which Σ|x| is less than 4/3 of |Σx|. Independent of the length of the axis.
constexpr double kTolerance = 64 * 4 / 3.0 * 0x1p-24;

void check(const Shape& shape, int axis) {
  check_kernel({.name = shape.str(),
                .operation = Mean{.axis = axis},
                .inputs = {random_tensor(shape, 1, 1, 1)},
                .tolerance = kTolerance});
}

TEST(Mean, MatchesTheReference) {
  for (const std::int64_t c : {0, 1, 3, 4, 5, 8, 9, 16, 17, 31, 32, 33, 64, 65, 192}) check({2, 49, c}, 1);
  for (const std::int64_t t : {1, 2, 63, 64, 65, 196, 1000}) check({2, t, 26}, 1);
  check({0, 5, 7}, 1);
  check({5, 7}, 0);
  check({5, 7}, -1);
  check({3, 4, 1000}, 2);
  check({3, 4, 5, 6}, -2);
  check({129}, 0);
}

TEST(Mean, StaysAccurateOverManyTokens) { check({1, 65'536, 24}, 1); }

TEST(Mean, RefusesShapesThatDoNotFit) {
  Graph graph("toy");
  const Value x = graph.input("x", {DType::kF32, {2, 0, 4}});
  EXPECT_EQ(mean(x, -1).shape(), (Shape{2, 0}));
  const auto error_of = [](auto&& build) -> std::string {
    try {
      build();
    } catch (const ShapeError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of([&] { mean(x); }), "[mean] axis 1 of x [2,0,4] is empty (at toy)");
  EXPECT_EQ(error_of([&] { mean(x, 3); }), "[mean] x [2,0,4] has no axis 3 (at toy)");
  EXPECT_EQ(error_of([&] { mean(x, -4); }), "[mean] x [2,0,4] has no axis -4 (at toy)");
}

}  // namespace
}  // namespace weft
