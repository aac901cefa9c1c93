#include "ops/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernel/onednn.h"
#include "ops/kernels.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::infer_error;
using testing::random_tensor;

// Standard normal q, k, v. A score is a sum of D products with an error of at most (D + 2) half ulps (2^-24) of their
// magnitudes, which for D ≤ 192 stays below 40 · 2^-24 as errors add up like √D; it goes into the probability as it
// is. The exponential adds 3, the sums over blocks and the quotient a few more. The results are means of v, at least
// 1/√T of its size; 64 · 2^-24 of max |v| ≈ 4 over a largest result of ≥ 0.3 is what is allowed.
constexpr double kTolerance = 64 * 0x1p-24 * 4 / 0.3;

testing::OpCase make_case(std::int64_t batch, std::int64_t queries, std::int64_t keys, std::int64_t channels, int heads,
                          float spread = 1, float scale = 0) {
  return {.name = fmt::format("B={} Tq={} Tk={} C={}", batch, queries, keys, channels),
          .operation = Attention{.heads = heads, .scale = scale},
          .inputs = {random_tensor({batch, queries, channels}, 1, spread),
                     random_tensor({batch, keys, channels}, 2, spread), random_tensor({batch, keys, channels}, 3)},
          .tolerance = kTolerance};
}

Tensor run(const testing::OpCase& c, DType precision, int threads = 2) {
  std::vector<TensorType> in;
  std::vector<const std::byte*> data;
  for (const Tensor& input : c.inputs) {
    in.push_back(input.type());
    data.push_back(input.raw());
  }
  const std::vector<TensorType> out = c.operation.infer(in);
  const std::vector<const Tensor*> constants(3, nullptr);
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

TEST(Attention, MatchesTheReference) {
  for (const std::int64_t tokens : {1, 2, 7, 15, 16, 17, 33, 65, 197})
    check_kernel(make_case(1, tokens, tokens, 24, 3));
  check_kernel(make_case(3, 197, 197, 192, 3));
  check_kernel(make_case(2, 50, 50, 7, 1));
  check_kernel(make_case(1, 17, 17, 5, 5));  // one channel to a head
  check_kernel(make_case(1, 5, 1, 8, 2));    // one key: y = v
  check_kernel(make_case(1, 1, 40, 8, 2));
  check_kernel(make_case(2, 13, 29, 192, 1));
  check_kernel(make_case(0, 5, 5, 8, 2));
  check_kernel(make_case(1, 0, 5, 8, 2));
}

TEST(Attention, GoesOverSeveralBlocksOfKeys) {
  for (const std::int64_t keys : {383, 384, 385, 768, 769, 1600}) check_kernel(make_case(1, 9, keys, 16, 2));
  check_kernel(make_case(1, 1025, 1025, 32, 2));
}

TEST(Attention, TakesAnyScale) {
  check_kernel(make_case(1, 33, 33, 24, 3, 1, 0.25F));
  check_kernel(make_case(1, 33, 33, 24, 3, 1, -1));
  EXPECT_EQ(Attention{.heads = 3}.factor(64), 0.125);
  EXPECT_EQ((Attention{.heads = 3, .scale = 2}).factor(64), 2);
}

// q, k, v and the probabilities are each within 2^-9 of their value. The rounding of v and of the probabilities changes
// a result by at most 2 · 2^-9 of max |v|; that of q and k changes a score by 2 · 2^-9 · |q|·|k| / √D at most, for
// D = 64 in practice (independent errors add like √D) by 2^-9 · √2 of a standard deviation, itself 1.
TEST(Attention, MultipliesInBf16) {
  for (const DType precision : {DType::kBF16, DType::kI8}) {
    for (const auto& [tokens, channels, heads] :
         {std::tuple{1, 8, 2}, {17, 7, 1}, {197, 192, 3}, {601, 128, 2}, {40, 5, 5}}) {
      const testing::OpCase c = make_case(2, tokens, tokens, channels, heads);
      SCOPED_TRACE(c.name);
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
}

// Scores of ±1e4 and more: the largest one takes all, as in the reference.
TEST(Attention, SurvivesLargeScores) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    testing::OpCase c = make_case(1, 70, 700, 16, 2, 60);
    const Tensor y = run(c, precision);
    for (const float x : y.data<float>()) ASSERT_TRUE(std::isfinite(x));
    // The same with queries along the keys, where the winner is clear.
    for (Tensor* x : {&c.inputs[0], &c.inputs[1]}) std::ranges::fill(x->mutable_data<float>(), 0.0F);
    for (std::size_t i = 0; i < 700; ++i) {
      c.inputs[1].mutable_data<float>()[i * 16] = static_cast<float>(i);
      c.inputs[1].mutable_data<float>()[i * 16 + 8] = -static_cast<float>(i);
    }
    for (std::size_t i = 0; i < 70; ++i) {
      for (const std::size_t channel : {0, 8}) c.inputs[0].mutable_data<float>()[i * 16 + channel] = i % 2 ? 256 : -256;
    }
    // 699 is the largest in f32; in bf16 the keys 698 … 700 are one.
    if (precision == DType::kF32) {
      EXPECT_LE(testing::relative_error(run(c, precision), testing::run_reference(c)[0]), kTolerance);
    }
  }
}

TEST(Attention, HandsNaNOn) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    testing::OpCase c = make_case(1, 20, 20, 16, 2);
    c.inputs[0].mutable_data<float>()[5 * 16 + 3] = std::numeric_limits<float>::quiet_NaN();
    const Tensor y = run(c, precision);
    for (std::size_t i = 0; i < 320; ++i) EXPECT_EQ(std::isnan(y.data<float>()[i]), i / 16 == 5 && i % 16 < 8) << i;
  }
}

TEST(Attention, CountsBothProducts) {
  const TensorType x{DType::kF32, {2, 197, 192}};
  EXPECT_EQ(macs(Attention{.heads = 3}, std::vector{x, x, x}), 2LL * 2 * 197 * 197 * 192);
  const TensorType huge{DType::kF32, {1, std::int64_t{1} << 32, 64}};
  EXPECT_THROW(macs(Attention{}, std::vector{huge, huge, huge}), ShapeError);
  EXPECT_EQ(Operation(Attention{.heads = 3}).attributes(), "heads=3, scale=0");
}

TEST(Attention, RefusesWhatDoesNotFit) {
  const Attention two{.heads = 2};
  EXPECT_EQ(infer_error(two, {{1, 5, 8}, {1, 9, 8}, {1, 9, 8}}), "no error");
  EXPECT_EQ(infer_error(Attention{.heads = 0}, {{1, 5, 8}, {1, 9, 8}, {1, 9, 8}}),
            "[attention] heads must be at least 1, got 0");
  EXPECT_EQ(infer_error(Attention{.scale = INFINITY}, {{1, 5, 8}, {1, 9, 8}, {1, 9, 8}}),
            "[attention] scale must be finite, got inf");
  EXPECT_EQ(infer_error(two, {{1, 5, 8}, {1, 9, 8}}), "[attention] takes q, k and v, got 2 inputs");
  EXPECT_EQ(infer_error(two, {{5, 8}, {9, 8}, {9, 8}}), "[attention] q must be [B,Tq,C] with C ≥ 1, got [5,8]");
  EXPECT_EQ(infer_error(two, {{1, 5, 7}, {1, 9, 7}, {1, 9, 7}}),
            "[attention] 2 heads do not divide the 7 channels of q");
  EXPECT_EQ(infer_error(two, {{1, 5, 8}, {1, 0, 8}, {1, 0, 8}}),
            "[attention] k must be [1,Tk,8] with Tk ≥ 1, got [1,0,8]");
  EXPECT_EQ(infer_error(two, {{1, 5, 8}, {2, 9, 8}, {2, 9, 8}}),
            "[attention] k must be [1,Tk,8] with Tk ≥ 1, got [2,9,8]");
  EXPECT_EQ(infer_error(two, {{1, 5, 8}, {1, 9, 8}, {1, 8, 8}}), "[attention] v must be like k [1,9,8], got [1,8,8]");
}

}  // namespace
}  // namespace weft
