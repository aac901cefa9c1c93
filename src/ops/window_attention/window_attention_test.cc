#include "ops/window_attention/window_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernel/onednn.h"
#include "ops/attention/attention.h"
#include "ops/kernels.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::infer_error;
using testing::random_tensor;

// As for attention (attention_test.cc): a score has an error of some 40 · 2^-24, results are means of v, at least
// 1/√N of its size; biases and masks enter a score with one rounding more.
constexpr double kTolerance = 64 * 0x1p-24 * 4 / 0.3;

struct Sizes {
  int height, width, window_h, window_w;
  int shift_h = 0, shift_w = 0;
  int heads = 1;
  std::int64_t channels = 8;
  std::int64_t batch = 1;
  bool bias = true;
  float scale = 0;
};

testing::OpCase make_case(const Sizes& s, bool constant_bias = true) {
  const WindowAttention a{.heads = s.heads,
                          .scale = s.scale,
                          .height = s.height,
                          .width = s.width,
                          .window_h = s.window_h,
                          .window_w = s.window_w,
                          .shift_h = s.shift_h,
                          .shift_w = s.shift_w};
  const Shape x{s.batch, std::int64_t{s.height} * s.width, s.channels};
  testing::OpCase c{.name = fmt::format("{} {}", x, Operation(a).attributes()),
                    .operation = a,
                    .inputs = {random_tensor(x, 1), random_tensor(x, 2), random_tensor(x, 3)},
                    .tolerance = kTolerance,
                    .constant = {false, false, false}};
  if (s.bias) {
    c.inputs.push_back(random_tensor({s.heads, a.bias_entries()}, 4));
    c.constant.push_back(constant_bias);
  }
  return c;
}

Tensor run(const testing::OpCase& c, DType precision, int threads = 2) {
  std::vector<TensorType> in;
  std::vector<const std::byte*> data;
  for (const Tensor& input : c.inputs) {
    in.push_back(input.type());
    data.push_back(input.raw());
  }
  const std::vector<TensorType> out = c.operation.infer(in);
  const std::vector<const Tensor*> constants(in.size(), nullptr);
  PackCache packs;
  const auto kernel = make_kernel(
      c.operation,
      {.in = in, .out = out, .constants = constants, .threads = threads, .packs = &packs, .precision = precision});
  Tensor y(out[0]);
  Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel->scratch_bytes())});
  std::byte* const to = y.mutable_raw();
  const Workers workers(threads);
  workers.enter([&] {
    kernel->run({.in = data, .out = std::span(&to, 1), .scratch = scratch.mutable_raw(), .workers = workers});
  });
  return y;
}

TEST(WindowAttention, MatchesTheReference) {
  check_kernel(make_case({.height = 1, .width = 1, .window_h = 1, .window_w = 1}));
  check_kernel(make_case({.height = 4, .width = 6, .window_h = 2, .window_w = 3}));
  check_kernel(make_case({.height = 4, .width = 6, .window_h = 2, .window_w = 3, .bias = false}));
  check_kernel(
      make_case({.height = 8, .width = 12, .window_h = 4, .window_w = 4, .heads = 3, .channels = 15, .batch = 2}));
  check_kernel(make_case({.height = 14, .width = 14, .window_h = 7, .window_w = 7, .heads = 3, .channels = 96}));
  check_kernel(make_case({.height = 16, .width = 16, .window_h = 16, .window_w = 16, .heads = 2, .channels = 64}));
  check_kernel(make_case({.height = 4, .width = 4, .window_h = 4, .window_w = 4, .heads = 5, .channels = 5}));
  check_kernel(
      make_case({.height = 6, .width = 6, .window_h = 3, .window_w = 3, .heads = 1, .channels = 17, .scale = -1}));
  check_kernel(make_case({.height = 4, .width = 4, .window_h = 2, .window_w = 2, .batch = 0}));
  check_kernel(make_case({.height = 0, .width = 4, .window_h = 2, .window_w = 2}));
}

// Each number of rows of a tile, of vectors, and of what is left of them.
TEST(WindowAttention, TakesWindowsOfAnySize) {
  for (const int side : {1, 2, 3, 5, 15, 16, 17, 33, 48, 63, 64}) {
    check_kernel(make_case({.height = 2, .width = side, .window_h = 1, .window_w = side, .heads = 2}));
    check_kernel(make_case({.height = side, .width = 2, .window_h = side, .window_w = 1, .heads = 2}));
  }
}

TEST(WindowAttention, Shifts) {
  check_kernel(make_case({.height = 4, .width = 6, .window_h = 2, .window_w = 3, .shift_h = 1, .shift_w = 1}));
  check_kernel(make_case({.height = 4, .width = 6, .window_h = 4, .window_w = 6, .shift_h = 2, .shift_w = 3}));
  check_kernel(make_case({.height = 6, .width = 6, .window_h = 3, .window_w = 2, .shift_h = 2, .bias = false}));
  check_kernel(make_case({.height = 6, .width = 6, .window_h = 3, .window_w = 2, .shift_w = 1}));
  check_kernel(make_case({.height = 28,
                          .width = 28,
                          .window_h = 7,
                          .window_w = 7,
                          .shift_h = 3,
                          .shift_w = 3,
                          .heads = 3,
                          .channels = 96,
                          .batch = 2}));
}

TEST(WindowAttention, TakesABiasThatIsComputed) {
  check_kernel(make_case({.height = 4, .width = 6, .window_h = 2, .window_w = 3, .heads = 2}, false));
  check_kernel(make_case({.height = 24, .width = 24, .window_h = 24, .window_w = 24, .heads = 2}, false));
}

// Beyond 512 tokens in a window the kernel goes over blocks of 384 keys.
TEST(WindowAttention, GoesOverSeveralBlocksOfKeys) {
  for (const int width : {511, 512, 513, 769}) {
    check_kernel(make_case({.height = 1, .width = width, .window_h = 1, .window_w = width, .heads = 2}));
  }
  check_kernel(make_case({.height = 23, .width = 31, .window_h = 23, .window_w = 31, .heads = 2}));
  check_kernel(make_case({.height = 600, .width = 2, .window_h = 600, .window_w = 1, .bias = false}));
  check_kernel(make_case({.height = 48,
                          .width = 48,
                          .window_h = 24,
                          .window_w = 24,
                          .shift_h = 12,
                          .shift_w = 7,
                          .heads = 2,
                          .batch = 2}));
  check_kernel(make_case({.height = 48, .width = 24, .window_h = 24, .window_w = 24, .shift_h = 12, .bias = false}));
}

// Without shift and bias, and with one window, it is attention.
TEST(WindowAttention, OfTheWholeGridIsAttention) {
  testing::OpCase c = make_case({.height = 5, .width = 7, .window_h = 5, .window_w = 7, .heads = 2, .bias = false});
  const Tensor got = testing::run_reference(c)[0];
  c.operation = Attention{.heads = 2};
  EXPECT_LE(testing::relative_error(got, testing::run_reference(c)[0]), 0x1p-45);  // sums of the same terms
}

// What the shift does, in tokens: windows begin at the shift, and wrap around.
TEST(WindowAttention, FindsTokensAcrossTheBorder) {
  const WindowAttention a{.height = 4, .width = 6, .window_h = 2, .window_w = 3, .shift_h = 1, .shift_w = 2};
  EXPECT_EQ(a.windows(), 4);
  EXPECT_EQ(a.token(0, 0), 1 * 6 + 2);
  EXPECT_EQ(a.token(1, 1), 1 * 6 + 0);
  EXPECT_EQ(a.token(3, 5), 0 * 6 + 1);
  EXPECT_EQ(a.rows_before(0), 2);
  EXPECT_EQ(a.columns_before(0), 3);
  EXPECT_EQ(a.rows_before(3), 1);
  EXPECT_EQ(a.columns_before(3), 1);
}

// As for attention: products in bf16 change a result by at most 2 · 2^-9 of max |v| for v and the probabilities, and as
// much for q and k, whose scores are of size 1.
TEST(WindowAttention, LargeWindowsMultiplyInBf16) {
  for (const DType precision : {DType::kBF16, DType::kI8}) {
    const testing::OpCase c =
        make_case({.height = 24, .width = 24, .window_h = 24, .window_w = 24, .heads = 2, .channels = 64});
    const Tensor want = testing::run_reference(c)[0];
    double largest_v = 0;
    double largest_y = 0;
    for (const float x : c.inputs[2].data<float>()) largest_v = std::max(largest_v, std::abs(double{x}));
    for (const double x : want.data<double>()) largest_y = std::max(largest_y, std::abs(x));
    const double error = testing::relative_error(run(c, precision), want);
    EXPECT_LE(error, 4 * 0x1p-9 * largest_v / largest_y);
    EXPECT_EQ(error > 0x1p-14, onednn::multiplies_natively(DType::kBF16)) << error;
  }
}

TEST(WindowAttention, HandsNaNOnWithinItsWindow) {
  for (const int side : {4, 24}) {  // a small and a large window
    testing::OpCase c =
        make_case({.height = 2 * side, .width = side, .window_h = side, .window_w = side, .channels = 3});
    c.inputs[0].mutable_data<float>()[7] = std::numeric_limits<float>::quiet_NaN();
    const Tensor y = run(c, DType::kF32);
    for (std::size_t i = 0; i < y.data<float>().size(); ++i) ASSERT_EQ(std::isnan(y.data<float>()[i]), i / 3 == 2) << i;
  }
}

// Scores of ±1e4 and more: nothing overflows.
TEST(WindowAttention, SurvivesLargeScores) {
  for (const int side : {7, 24}) {
    testing::OpCase c = make_case({.height = side, .width = side, .window_h = side, .window_w = side, .shift_h = 3});
    for (Tensor* x : {&c.inputs[0], &c.inputs[1]}) {
      for (float& value : x->mutable_data<float>()) value *= 100;
    }
    const Tensor y = run(c, DType::kF32);
    for (const float x : y.data<float>()) ASSERT_TRUE(std::isfinite(x));
  }
}

// 4096 tokens in a window: scores of all would take 64 MiB a head.
TEST(WindowAttention, TakesLinearMemory) {
  const auto scratch = [](int side) {
    const TensorType x{DType::kF32, {1, std::int64_t{side} * side, 64}};
    const TensorType bias{DType::kF32, {4, (2LL * side - 1) * (2LL * side - 1)}};
    const std::vector<TensorType> in{x, x, x, bias};
    const std::vector<const Tensor*> constants(4, nullptr);
    PackCache packs;
    const WindowAttention a{.heads = 4, .height = side, .width = side, .window_h = side, .window_w = side};
    return make_kernel(a, {.in = in, .out = std::span(&x, 1), .constants = constants, .threads = 1, .packs = &packs})
        ->scratch_bytes();
  };
  // Four times the tokens: keys, values and table; the tile's memory stays.
  EXPECT_LE(scratch(128), 4 * scratch(64));
  EXPECT_LE(scratch(64), std::size_t{8} << 20);
}

TEST(WindowAttention, CountsBothProducts) {
  const TensorType x{DType::kF32, {2, 196, 96}};
  const WindowAttention a{.heads = 3, .height = 14, .width = 14, .window_h = 7, .window_w = 7};
  EXPECT_EQ(macs(a, std::vector{x, x, x}), 2LL * 2 * 196 * 49 * 96);
  EXPECT_EQ(Operation(a).attributes(),
            "heads=3, scale=0, height=14, width=14, window_h=7, window_w=7, shift_h=0, shift_w=0");
}

TEST(WindowAttention, RefusesWhatDoesNotFit) {
  const WindowAttention a{.heads = 2, .height = 4, .width = 6, .window_h = 2, .window_w = 3};
  const auto with = [&](auto change) {
    WindowAttention changed = a;
    change(changed);
    return infer_error(changed, {{1, 24, 8}, {1, 24, 8}, {1, 24, 8}});
  };
  EXPECT_EQ(with([](auto&) {}), "no error");
  EXPECT_EQ(infer_error(a, {{1, 24, 8}, {1, 24, 8}, {1, 24, 8}, {2, 15}}), "no error");
  EXPECT_EQ(with([](auto& x) { x.heads = 0; }), "[window_attention] heads must be at least 1, got 0");
  EXPECT_EQ(with([](auto& x) { x.scale = NAN; }), "[window_attention] scale must be finite, got nan");
  EXPECT_EQ(with([](auto& x) { x.height = -1; }), "[window_attention] the grid must not be negative, got -1 x 6");
  EXPECT_EQ(with([](auto& x) { x.window_h = 3; }),
            "[window_attention] windows must divide the grid of 4 x 6, got 3 x 3");
  EXPECT_EQ(with([](auto& x) { x.window_w = 0; }),
            "[window_attention] windows must divide the grid of 4 x 6, got 2 x 0");
  EXPECT_EQ(with([](auto& x) { x.shift_w = 3; }),
            "[window_attention] the shift must be less than the window of 2 x 3, got 0 x 3");
  EXPECT_EQ(with([](auto& x) { x.width = 3; }),
            "[window_attention] q must be [B,T,C]=[B,12,C] for a grid of 4 x 3, with C ≥ 1, got [1,24,8]");
  EXPECT_EQ(with([](auto& x) { x.heads = 3; }), "[window_attention] 3 heads do not divide the 8 channels of q");
  EXPECT_EQ(infer_error(a, {{1, 24, 8}, {1, 24, 8}}),
            "[window_attention] takes q, k, v and maybe a bias, got 2 inputs");
  EXPECT_EQ(infer_error(a, {{1, 24, 8}, {1, 24, 4}, {1, 24, 8}}),
            "[window_attention] k and v must be like q [1,24,8], got [1,24,4] and [1,24,8]");
  EXPECT_EQ(infer_error(a, {{1, 24, 8}, {1, 24, 8}, {1, 24, 8}, {2, 24}}),
            "[window_attention] the bias must be [2,15] for 2 heads and windows of 2 x 3, got [2,24]");
}

}  // namespace
}  // namespace weft
