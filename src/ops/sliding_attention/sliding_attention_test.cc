#include "ops/sliding_attention/sliding_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/attention/attention.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::infer_error;
using testing::random_tensor;

// As for attention (attention_test.cc), over k² keys.
constexpr double kTolerance = 64 * 0x1p-24 * 4 / 0.3;

testing::OpCase make_case(int height, int width, int kernel_size, int heads, std::int64_t channels,
                          SlidingBorder border, bool bias = true, std::int64_t batch = 1) {
  const SlidingAttention a{
      .heads = heads, .kernel_size = kernel_size, .height = height, .width = width, .border = border};
  const Shape x{batch, std::int64_t{height} * width, channels};
  testing::OpCase c{.name = fmt::format("{} {}", x, Operation(a).attributes()),
                    .operation = a,
                    .inputs = {random_tensor(x, 1), random_tensor(x, 2), random_tensor(x, 3)},
                    .tolerance = kTolerance};
  if (bias) c.inputs.push_back(random_tensor({heads, std::int64_t{kernel_size} * kernel_size}, 4));
  return c;
}

TEST(SlidingAttention, MatchesTheReference) {
  for (const SlidingBorder border : {SlidingBorder::kExcluded, SlidingBorder::kZeroPadding}) {
    for (const int width : {1, 2, 3, 4, 5, 8, 15, 16, 17, 33}) check_kernel(make_case(4, width, 3, 2, 6, border));
    for (const int side : {1, 5, 7, 11}) check_kernel(make_case(9, 11, side, 2, 12, border));
    check_kernel(make_case(3, 2, 9, 1, 4, border));  // windows reach beyond both sides
    check_kernel(make_case(14, 14, 7, 3, 96, border, true, 2));
    check_kernel(make_case(6, 7, 3, 5, 5, border, false));
    check_kernel(make_case(40, 70, 5, 1, 64, border));  // several blocks of rows
    check_kernel(make_case(6, 7, 3, 1, 5, border, true, 0));
  }
}

// Where no window leaves out a token, it is attention.
TEST(SlidingAttention, OverTheWholeGridIsAttention) {
  testing::OpCase c = make_case(3, 4, 7, 2, 6, SlidingBorder::kExcluded, false);
  const Tensor got = testing::run_reference(c)[0];
  c.operation = Attention{.heads = 2};
  EXPECT_LE(testing::relative_error(got, testing::run_reference(c)[0]), 0x1p-45);  // sums of the same terms
}

TEST(SlidingAttention, CountsBothProducts) {
  const TensorType x{DType::kF32, {2, 20, 6}};
  const SlidingAttention a{.heads = 2, .kernel_size = 3, .height = 4, .width = 5};
  EXPECT_EQ(macs(a, std::vector{x, x, x}), 2LL * 2 * 20 * 9 * 6);
  EXPECT_EQ(Operation(a).attributes(), "heads=2, kernel_size=3, scale=0, height=4, width=5, border=excluded");
}

TEST(SlidingAttention, RefusesWhatDoesNotFit) {
  const SlidingAttention a{.heads = 2, .kernel_size = 3, .height = 4, .width = 5};
  const auto with = [&](auto change) {
    SlidingAttention changed = a;
    change(changed);
    return infer_error(changed, {{1, 20, 6}, {1, 20, 6}, {1, 20, 6}});
  };
  EXPECT_EQ(with([](auto&) {}), "no error");
  EXPECT_EQ(with([](auto& x) { x.heads = 0; }), "[sliding_attention] heads must be at least 1, got 0");
  EXPECT_EQ(with([](auto& x) { x.kernel_size = 4; }),
            "[sliding_attention] kernel_size must be odd and 1 … 1023, got 4");
  EXPECT_EQ(with([](auto& x) { x.scale = INFINITY; }), "[sliding_attention] scale must be finite, got inf");
  EXPECT_EQ(with([](auto& x) { x.width = -5; }), "[sliding_attention] the grid must not be negative, got 4 x -5");
  EXPECT_EQ(with([](auto& x) { x.width = 4; }),
            "[sliding_attention] q must be [B,T,C]=[B,16,C] for a grid of 4 x 4, with C ≥ 1, got [1,20,6]");
  EXPECT_EQ(with([](auto& x) { x.heads = 4; }), "[sliding_attention] 4 heads do not divide the 6 channels of q");
  EXPECT_EQ(infer_error(a, {{1, 20, 6}}), "[sliding_attention] takes q, k, v and maybe a bias, got 1 inputs");
  EXPECT_EQ(infer_error(a, {{1, 20, 6}, {1, 20, 6}, {1, 20, 8}}),
            "[sliding_attention] k and v must be like q [1,20,6], got [1,20,6] and [1,20,8]");
  EXPECT_EQ(infer_error(a, {{1, 20, 6}, {1, 20, 6}, {1, 20, 6}, {9, 2}}),
            "[sliding_attention] the bias must be [2,9], got [9,2]");
}

}  // namespace
}  // namespace weft
