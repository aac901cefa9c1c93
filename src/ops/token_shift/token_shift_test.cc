#include "ops/token_shift/token_shift.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

TEST(TokenShift, MatchesTheReference) {
  for (const Shape& shape : {Shape{2, 5, 3}, Shape{3, 1, 17}, Shape{1, 2, 16}, Shape{2, 300, 40}, Shape{4, 7, 768},
                             Shape{0, 5, 3}, Shape{2, 0, 3}, Shape{2, 5, 0}, Shape{300, 1, 5}}) {
    check_kernel({.name = shape.str(),
                  .operation = TokenShift{},
                  .inputs = {random_tensor(shape, 1), random_tensor({shape[0], shape[2]}, 2)},
                  .tolerance = 0});  // copies
  }
}

// By hand: two sequences of three tokens, after 10 and 20.
TEST(TokenShift, TakesTheTokenBefore) {
  std::vector<Tensor> in = {Tensor(DType::kF64, {2, 3, 1}), Tensor(DType::kF64, {2, 1})};
  std::ranges::copy(std::vector{1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, in[0].mutable_data<double>().begin());
  std::ranges::copy(std::vector{10.0, 20.0}, in[1].mutable_data<double>().begin());
  Tensor y(DType::kF64, {2, 3, 1});
  reference(TokenShift{}, in, std::span(&y, 1));
  EXPECT_TRUE(std::ranges::equal(y.data<double>(), std::vector{10.0, 1.0, 2.0, 20.0, 4.0, 5.0}));
}

TEST(TokenShift, RefusesWhatDoesNotFit) {
  const auto error_of = [](std::vector<Shape> in) { return testing::infer_error(TokenShift{}, in); };
  EXPECT_EQ(error_of({{2, 5, 3}, {2, 3}}), "no error");
  EXPECT_EQ(error_of({{2, 5, 3}}), "[token_shift] takes x and the token before it, got 1 inputs");
  EXPECT_EQ(error_of({{5, 3}, {3}}), "[token_shift] x must be [B,T,C], got [5,3]");
  EXPECT_EQ(error_of({{2, 5, 3}, {3}}), "[token_shift] the token before must be [B,C]=[2,3], got [3]");
}

}  // namespace
}  // namespace weft
