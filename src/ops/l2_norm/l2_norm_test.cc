#include "ops/l2_norm/l2_norm.h"

#include <gtest/gtest.h>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::infer_error;
using testing::random_tensor;

// A sum of C ≤ 4096 squares in at least four chains has an error of a few dozen half-ulps; a root and a quotient
// follow.
constexpr double kTolerance = 64 * 0x1p-24;

void check(Shape shape, int heads = 1, float eps = 1e-12F, float spread = 1) {
  check_kernel({.name = fmt::format("{} {} {}", shape, heads, spread),
                .operation = L2Norm{.heads = heads, .eps = eps},
                .inputs = {random_tensor(shape, 1, spread)},
                .tolerance = kTolerance});
}

TEST(L2Norm, MatchesTheReference) {
  for (const std::int64_t c : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 4096}) check({3, c});
  for (const int heads : {1, 2, 3, 32, 96}) check({2, 49, 96}, heads);
  check({8});
  check({0, 8}, 2);
}

TEST(L2Norm, LeavesWhatIsShorterThanEps) { check({5, 16}, 2, 100); }

// Squares of 1e30 and of 1e-30 are out of f32's range; a row of zeros stays one.
TEST(L2Norm, TakesNumbersOfAnySize) {
  for (const float spread : {1e30F, 1e-30F, 1e-20F, 1e20F}) check({4, 40}, 2, 1e-38F, spread);
  Tensor x = random_tensor({2, 8}, 1);
  std::fill_n(x.mutable_data<float>().begin(), 8, 0.0F);
  check_kernel({.name = "zeros", .operation = L2Norm{}, .inputs = {x}, .tolerance = kTolerance});
}

TEST(L2Norm, RefusesWhatDoesNotFit) {
  EXPECT_EQ(infer_error(L2Norm{}, {{2, 3}}), "no error");
  EXPECT_EQ(infer_error(L2Norm{.heads = 0}, {{2, 3}}), "[l2_norm] heads must be at least 1, got 0");
  EXPECT_EQ(infer_error(L2Norm{.eps = 0}, {{2, 3}}), "[l2_norm] eps must be above 0 and finite, got 0");
  EXPECT_EQ(infer_error(L2Norm{.heads = 2}, {{2, 3}}), "[l2_norm] x must be [...,C] with C a multiple of 2, got [2,3]");
  EXPECT_EQ(infer_error(L2Norm{}, {{}}), "[l2_norm] x must be [...,C] with C a multiple of 1, got []");
  EXPECT_EQ(infer_error(L2Norm{}, {{2}, {2}}), "[l2_norm] takes x, got 2 inputs");
}

}  // namespace
}  // namespace weft
