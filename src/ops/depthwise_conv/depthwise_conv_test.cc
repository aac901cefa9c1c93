#include "ops/depthwise_conv/depthwise_conv.h"

#include <gtest/gtest.h>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// Sums of K products in f32: the error grows like √K half-ulps of partial sums; 32 half-ulps cover K ≤ 1024.
constexpr double kTolerance = 32 * 0x1p-24;

void check(const Shape& x, const Shape& weight, const DepthwiseConv& op, bool bias = true, bool constant = true) {
  std::vector<Tensor> inputs = {random_tensor(x, 1), random_tensor(weight, 2)};
  if (bias) inputs.push_back(random_tensor({x[3]}, 3));
  check_kernel({.name = fmt::format("{} by {}{}", x, weight, bias ? " + bias" : ""),
                .operation = op,
                .inputs = inputs,
                .tolerance = kTolerance,
                .constant = {false, constant, true}});
}

TEST(DepthwiseConv, MatchesTheReference) {
  for (const std::int64_t c : {1, 3, 4, 5, 8, 15, 16, 17, 33, 64, 65, 130})
    check({2, 5, 9, c}, {c, 1, 3, 3}, {.padding = 1});
  for (const std::int64_t k : {1, 2, 3, 4, 5, 6, 7, 8, 11}) {
    check({1, 12, 13, 20}, {20, 1, k, k}, {.padding = static_cast<int>(k / 2)}, false);
  }
  for (const std::int64_t width : {1, 2, 6, 7, 8, 9, 15, 16, 17}) {
    check({1, 4, width, 16}, {16, 1, 7, 7}, {.padding = 3});
  }
  check({2, 14, 14, 192}, {192, 1, 7, 7}, {.padding = 3});
  check({1, 56, 56, 96}, {96, 1, 7, 7}, {.padding = 3});
}

TEST(DepthwiseConv, TakesOneKernelAPicture) {
  check({2, 9, 13, 10}, {2, 10, 7, 7}, {.padding = 3}, true, false);
  check({3, 7, 7, 96}, {3, 96, 7, 7}, {.padding = 3}, true, false);
  check({2, 5, 4, 70}, {2, 70, 3, 5}, {.padding = 2}, false, false);
  check({2, 5, 4, 70}, {2, 70, 3, 5}, {.padding = 2}, false, true);  // known beforehand
  check({1, 5, 4, 1}, {1, 1, 3, 3}, {.padding = 1});
  check({70, 2, 2, 70}, {70, 70, 3, 3}, {.padding = 1}, false, false);
  check({2, 9, 13, 10}, {10, 1, 7, 7}, {.padding = 3}, true, false);  // one for all, and yet no constant
}

// Other extents than the grid's, and kernels that cover more padding than grid.
TEST(DepthwiseConv, PadsAsItIsTold) {
  check({2, 9, 8, 6}, {6, 1, 3, 5}, {.padding = 0});
  check({2, 3, 4, 6}, {6, 1, 3, 3}, {.padding = 2});
  check({1, 1, 1, 6}, {6, 1, 7, 7}, {.padding = 3});
  check({1, 2, 3, 6}, {6, 1, 9, 9}, {.padding = 4});
}

TEST(DepthwiseConv, TakesNothing) {
  check({0, 5, 6, 3}, {3, 1, 3, 3}, {.padding = 1});
  check({2, 5, 6, 0}, {0, 1, 3, 3}, {.padding = 1});
}

TEST(DepthwiseConv, CountsTheWork) {
  const std::vector<TensorType> in = {{DType::kF32, {2, 9, 8, 5}}, {DType::kF32, {5, 1, 3, 3}}};
  EXPECT_EQ(infer(DepthwiseConv{}, in)[0].shape, (Shape{2, 7, 6, 5}));
  EXPECT_EQ(macs(DepthwiseConv{}, in), 2 * 7 * 6 * 5 * 9);
}

TEST(DepthwiseConv, DeclaresItsParameters) {
  Graph graph("toy");
  const Value x = graph.input("x", {DType::kF32, {1, 8, 8, 4}});
  EXPECT_EQ(depthwise_conv(x, Scope(graph)["conv"], 7).shape(), (Shape{1, 8, 8, 4}));
  ASSERT_EQ(graph.parameters().size(), 2U);
  EXPECT_EQ(graph.value(graph.parameters()[0]).name, "conv.weight");
  EXPECT_EQ(graph.value(graph.parameters()[0]).type.shape, (Shape{4, 1, 7, 7}));
}

TEST(DepthwiseConv, RefusesWhatDoesNotFit) {
  const auto error_of = testing::infer_error<DepthwiseConv>;
  EXPECT_EQ(error_of({}, {{1, 9, 9, 3}, {3, 1, 5, 5}, {3}}), "no error");
  EXPECT_EQ(error_of({}, {{2, 9, 9, 3}, {2, 3, 5, 5}, {3}}), "no error");
  EXPECT_EQ(error_of({}, {{1, 9, 9, 3}}), "[depthwise_conv] takes x, weight and an optional bias, got 1 inputs");
  EXPECT_EQ(error_of({}, {{9, 9, 3}, {3, 1, 5, 5}}), "[depthwise_conv] x must be [B,H,W,C], got [9,9,3]");
  EXPECT_EQ(error_of({}, {{2, 9, 9, 3}, {1, 3, 5, 5}}),
            "[depthwise_conv] weight must be [C,1,kh,kw]=[3,1,kh,kw] or [B,C,kh,kw]=[2,3,kh,kw], kh and kw ≥ 1, got "
            "[1,3,5,5]");
  EXPECT_EQ(error_of({}, {{2, 9, 9, 3}, {3, 1, 5, 5}, {2}}), "[depthwise_conv] bias must be [C]=[3], got [2]");
  EXPECT_EQ(error_of({.padding = 1}, {{1, 2, 9, 3}, {3, 1, 5, 5}}),
            "[depthwise_conv] x [1,2,9,3] with a padding of 1 is smaller than the kernel 5 x 5");
  EXPECT_EQ(error_of({.padding = -1}, {{1, 9, 9, 3}, {3, 1, 5, 5}}),
            "[depthwise_conv] padding must be at least 0, got -1");
}

}  // namespace
}  // namespace weft
