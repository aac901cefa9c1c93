#include "ops/elementwise/elementwise.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>

#include "kernel/testing/targets.h"
#include "ops/kernels.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// A handful of roundings in f32: at most three products and sums, each within half an ulp (2^-24) of operands that are
// themselves at most a few times the largest result.
constexpr double kRounding = 8 * 0x1p-24;
// Highway states 1 ulp for Exp and 4 ulp for Tanh; a sum and a quotient follow.
constexpr double kTranscendental = 12 * 0x1p-24;
// abs_x_erf of kernel/math-inl.h states an error of 6 · 2^-24 · |x|, half of which goes into y; the last sum adds a
// rounding. The largest |x| is that of the largest result: y(x) is almost x there.
constexpr double kGelu = 5 * 0x1p-24;

void check(Operation operation, std::vector<Shape> shapes, double tolerance = kRounding, float spread = 1) {
  std::vector<Tensor> inputs;
  for (const Shape& shape : shapes) inputs.push_back(random_tensor(shape, inputs.size() + 1, spread));
  check_kernel({.name = fmt::format("{}", fmt::join(shapes, " ")),
                .operation = std::move(operation),
                .inputs = std::move(inputs),
                .tolerance = tolerance});
}

// The one result of `operation` on `x`, as a session would compute it.
std::vector<float> run(const Operation& operation, const std::vector<float>& x, DType precision = DType::kF32) {
  const TensorType type{DType::kF32, {static_cast<std::int64_t>(x.size())}};
  const Tensor* const no_constant = nullptr;
  const auto kernel = make_lone_kernel(operation, {.in = std::span(&type, 1),
                                                   .out = std::span(&type, 1),
                                                   .constants = std::span(&no_constant, 1),
                                                   .precision = precision});
  std::vector<float> y(x.size());
  const auto* in = reinterpret_cast<const std::byte*>(x.data());
  auto* out = reinterpret_cast<std::byte*>(y.data());
  kernel->run({.in = std::span(&in, 1), .out = std::span(&out, 1), .workers = Workers(1)});
  return y;
}

TEST(Elementwise, UnaryMatchesTheReference) {
  for (const std::int64_t n : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 16384, 16385, 50'001}) {
    check(Scale{.factor = -0.37F}, {{n}});
    check(Sigmoid{}, {{n}}, kTranscendental, 4);
    check(Tanh{}, {{n}}, kTranscendental, 2);
    check(Gelu{}, {{n}}, kGelu, 3);
    check(Exp{}, {{n}}, kTranscendental, 3);
    check(Clamp{.low = -0.5F, .high = 1}, {{n}});
    check(Clamp{.high = 0.3F}, {{n}});
    check(Silu{}, {{n}}, kTranscendental, 4);  // a sigmoid and a product
  }
  check(Scale{.factor = 3}, {{}});
  check(Sigmoid{}, {{2, 196, 192}}, kTranscendental);
}

TEST(Elementwise, InFewerBitsASigmoidIsWithinAQuarterOfABF16Step) {
  std::vector<float> x;
  for (int i = -200'000; i <= 200'000; ++i) x.push_back(static_cast<float>(i) * 1e-3F);  // ±200
  for (const float extreme : {-3e38F, 3e38F, -1e-40F}) x.push_back(extreme);
  const float infinity = std::numeric_limits<float>::infinity();
  testing::for_each_target([&] {
    const std::vector<float> y = run(Sigmoid{}, x, DType::kBF16);
    for (std::size_t i = 0; i < x.size(); ++i) {
      // The cubic's 2^-13.7 and the reciprocal's 2^-11.4 (SSE and AVX2), rounding aside, of the result: that is 2^-126
      // where it should be less.
      const double want = std::max(Sigmoid::apply(x[i]), 0x1p-126);
      ASSERT_TRUE(std::abs(y[i] - want) <= 0x1p-11 * want || (y[i] == 0 && want == 0x1p-126)) << x[i] << " " << y[i];
    }
    const std::vector<float> ends = run(Sigmoid{}, {-infinity, infinity, std::nanf("")}, DType::kI8);
    EXPECT_NEAR(ends[0], 0, 0x1p-125);
    EXPECT_NEAR(ends[1], 1, 0x1p-11);
    EXPECT_TRUE(std::isnan(ends[2]));
  });
}

TEST(Elementwise, RectifiersMatchTheReference) {
  for (const std::int64_t n : {0, 1, 7, 9, 16, 33, 16385}) {
    // Shifted, for a case of zeros would prove little.
    check_kernel(
        {.name = fmt::format("{}", n), .operation = Relu{}, .inputs = {random_tensor({n}, 5, 1, 1)}, .tolerance = 0});
    check_kernel({.name = fmt::format("{}", n),
                  .operation = SquaredRelu{},
                  .inputs = {random_tensor({n}, 5, 1, 1)},
                  .tolerance = kRounding});
  }
}

TEST(Elementwise, BinaryBroadcasts) {
  for (const Operation& operation : {Operation(Add{}), Operation(Mul{})}) {
    for (const std::int64_t n : {0, 1, 3, 4, 5, 8, 9, 16, 17, 33}) {
      check(operation, {{n}, {n}});
      check(operation, {{3, n}, {n}});
      check(operation, {{n}, {3, n}});
      check(operation, {{2, 3, n}, {}});
      check(operation, {{1}, {2, 3, n}});
      check(operation, {{2, 3, n}, {2, 1, n}});
      check(operation, {{2, 3, 1}, {2, 3, n}});
      check(operation, {{4, 1}, {1, n}});
    }
    check(operation, {{2, 196, 192}, {1, 196, 192}});
    check(operation, {{2, 196, 192}, {1, 1, 192}});
    check(operation, {{2, 196, 192}, {2, 196, 192}});
    check(operation, {{3, 1, 5, 1, 7}, {2, 1, 4, 1}});
    check(operation, {{1, 20'000}, {2, 1, 1}});  // rows longer than a tile
  }
}

TEST(Elementwise, LerpMatchesTheReference) {
  for (const std::int64_t c : {0, 1, 5, 16, 17, 26, 192}) {
    check(Lerp{}, {{2, 9, c}, {2, 9, c}, {1, 1, c}});
    check(Lerp{}, {{9, c}, {9, c}, {c}});
  }
  check(Lerp{}, {{2, 196, 192}, {2, 196, 192}, {2, 196, 192}});
  check(Lerp{}, {{5, 7}, {5, 7}, {}});
}

TEST(Elementwise, SurvivesExtremes) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {-kInf, -1000, -100, -90, -20, -0.0F, 0, 1e-30F, 20, 100, 1000, kInf, kNaN};
  const std::vector<float> sigmoids = run(Sigmoid{}, x);
  const std::vector<float> tanhs = run(Tanh{}, x);
  const std::vector<float> positives = run(Relu{}, x);
  const std::vector<float> squares = run(SquaredRelu{}, x);
  const std::vector<float> powers = run(Exp{}, x);
  const std::vector<float> clamped = run(Clamp{.low = -90, .high = 20}, x);
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    SCOPED_TRACE(x[i]);
    // Relative to each value, not to the largest: small probabilities keep their digits; subnormals may be flushed.
    const double p = Sigmoid::apply(x[i]);
    EXPECT_NEAR(sigmoids[i], p, p * 4 * 0x1p-23 + std::numeric_limits<float>::min());
    EXPECT_NEAR(tanhs[i], Tanh::apply(x[i]), 4 * 0x1p-23);
    EXPECT_EQ(positives[i], static_cast<float>(Relu::apply(x[i])));
    EXPECT_EQ(squares[i], static_cast<float>(SquaredRelu::apply(x[i])));
    EXPECT_EQ(clamped[i], (Clamp{.low = -90, .high = 20}).apply(x[i]));
    const double power = Exp::apply(x[i]);
    if (power > std::numeric_limits<float>::max()) {
      EXPECT_EQ(powers[i], kInf);
    } else {
      EXPECT_NEAR(powers[i], power, power * 2 * 0x1p-23 + std::numeric_limits<float>::min());
    }
  }
  EXPECT_TRUE(std::isnan(sigmoids.back()) && std::isnan(tanhs.back()) && std::isnan(squares.back()));
  EXPECT_TRUE(std::isnan(powers.back()) && std::isnan(clamped.back()));
  EXPECT_TRUE(std::isnan(positives.back()) && std::isnan(run(Silu{}, {kNaN})[0]));
}

// Everywhere, not just where random numbers fall: the two sides of 0 and of 5.5, where erf is taken as 1, and beyond.
TEST(Elementwise, GeluIsExactToItsStatedError) {
  std::vector<float> x;
  for (int i = -9000; i <= 9000; ++i) x.push_back(static_cast<float>(i) / 1000);
  for (const float far : {100.0F, 1e10F, std::numeric_limits<float>::max(), 1e-20F, 5.4999995F, 5.5F, 5.5000005F}) {
    x.insert(x.end(), {far, -far});
  }
  x.push_back(std::numeric_limits<float>::quiet_NaN());
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    const std::vector<float> y = run(Gelu{}, x);
    for (std::size_t i = 0; i + 1 < x.size(); ++i) {
      ASSERT_NEAR(y[i], Gelu::apply(x[i]), kGelu * std::abs(x[i])) << hwy::TargetName(target) << " at " << x[i];
    }
    EXPECT_TRUE(std::isnan(y.back()));
  }
  hwy::SetSupportedTargetsForTest(0);
  EXPECT_NEAR(Gelu::apply(1), 0.8413447460685429, 1e-15);  // the normal distribution's Φ(1)
}

TEST(Elementwise, InfersTheBroadcastShape) {
  const auto f32 = [](Shape shape) { return TensorType{DType::kF32, std::move(shape)}; };
  const std::vector<TensorType> in = {f32({8, 1, 6, 1}), f32({7, 1, 5})};
  EXPECT_EQ(infer(Add{}, in)[0].shape, (Shape{8, 7, 6, 5}));
  EXPECT_EQ(macs(Mul{}, in), 0);
  EXPECT_EQ(infer(Mul{}, std::vector{f32({2, 0}), f32({1})})[0].shape, (Shape{2, 0}));
  EXPECT_EQ(Operation(Scale{.factor = 0.5F}).attributes(), "factor=0.5");
}

TEST(Elementwise, RefusesShapesThatDoNotFit) {
  Graph graph("toy");
  const auto input = [&](Shape shape) { return graph.input("x", {DType::kF32, std::move(shape)}); };
  const auto error_of = [](auto&& build) -> std::string {
    try {
      build();
    } catch (const ShapeError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of([&] {
              add(input({2, 3}), input({4}));
            }),
            "[add] shapes do not broadcast: f32[2,3] and f32[4] (at toy)");
  EXPECT_EQ(error_of([&] {
              mul(input({2, 3}), input({3, 3}));
            }),
            "[mul] shapes do not broadcast: f32[2,3] and f32[3,3] (at toy)");
  EXPECT_EQ(error_of([&] {
              lerp(input({2, 3}), input({1, 3}), input({3}));
            }),
            "[lerp] shifted must be like x [2,3], got [1,3] (at toy)");
  EXPECT_EQ(error_of([&] {
              lerp(input({1, 3}), input({1, 3}), input({2, 3}));
            }),
            "[lerp] mix [2,3] must broadcast to x [1,3] (at toy)");
  EXPECT_EQ(error_of([&] { graph.add_one(Sigmoid{}, {}); }), "[sigmoid] takes 1 inputs, got 0 (at toy)");
  EXPECT_EQ(error_of([&] {
              add(input({2}), graph.input("i", {DType::kI64, {2}}));
            }),
            "[add] inputs must have one element type, got f32[2] and i64[2] (at toy)");
}

}  // namespace
}  // namespace weft
