#include "ops/aft/aft.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernel/testing/targets.h"
#include "ops/causal_wkv/causal_wkv.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;
using testing::relative_error;

// A weight is e^x, good to 2 + |x| units of 2^-24 with |x| ≤ 10 or so here, and those of T ≤ 1100 products in f32 add
// up like √T: some 50 · 2^-24, three times that where a mean is small beside its terms. The golden cases ask for 1e-5
// too.
constexpr double kTolerance = 1e-5;
// The two forms in f64: 2^-52, times what e^x and sums of 100 terms lose.
constexpr double kExact = 0x1p-42;

struct Extents {
  std::int64_t batch, tokens, keys, channels;
};

testing::OpCase make_case(const Aft& a, const Extents& x, const std::optional<Shape>& bias, float key_scale = 1,
                          float bias_scale = 1) {
  testing::OpCase c{.name = fmt::format("[{},{},{}] of {} keys, {}, {}", x.batch, x.tokens, x.channels, x.keys,
                                        bias ? fmt::format("bias {}", *bias) : "no bias", Operation(a).attributes()),
                    .operation = a,
                    .inputs = {random_tensor({x.batch, x.tokens, x.keys}, 1, key_scale),
                               random_tensor({x.batch, x.tokens, x.channels}, 2)},
                    .tolerance = kTolerance};
  if (bias) c.inputs.push_back(random_tensor(*bias, 3, bias_scale));
  return c;
}

testing::OpCase simple(bool causal, const Extents& x, float key_scale = 1) {
  return make_case({.causal = causal}, x, std::nullopt, key_scale);
}
testing::OpCase table(bool causal, const Extents& x, int window, std::int64_t more = 0, float key_scale = 1,
                      float bias_scale = 1) {
  return make_case({.causal = causal, .window = window}, x, Shape{x.tokens + more, x.tokens + more}, key_scale,
                   bias_scale);
}
testing::OpCase line(bool causal, const Extents& x, std::int64_t filters, std::int64_t taps, float key_scale = 1,
                     float bias_scale = 1) {
  return make_case({.causal = causal}, x, Shape{filters, 1, taps}, key_scale, bias_scale);
}
testing::OpCase grid(int height, int width, std::int64_t batch, std::int64_t keys, std::int64_t channels,
                     const Shape& filters, float key_scale = 1, float bias_scale = 1) {
  return make_case({.height = height, .width = width}, {batch, std::int64_t{height} * width, keys, channels}, filters,
                   key_scale, bias_scale);
}

TEST(Aft, WithoutABiasMatchesTheReference) {
  for (const bool causal : {false, true}) {
    for (const std::int64_t t : {1, 2, 3, 17, 100, 1025}) check_kernel(simple(causal, {1, t, 5, 5}));
    for (const std::int64_t c : {1, 3, 4, 8, 15, 31, 32, 33, 64, 100}) check_kernel(simple(causal, {2, 12, c, c}));
    check_kernel(simple(causal, {3, 20, 6, 30}));
    check_kernel(simple(causal, {2, 0, 6, 30}));
    check_kernel(simple(causal, {0, 4, 6, 30}));
  }
}

TEST(Aft, WithATableMatchesTheReference) {
  for (const bool causal : {false, true}) {
    for (const std::int64_t t : {1, 2, 3, 17, 63, 64, 65, 130}) {
      check_kernel(table(causal, {1, t, 5, 5}, 0));
      for (const int window : {1, 2, 9, 40, 1000}) check_kernel(table(causal, {1, t, 5, 5}, window));
    }
    for (const std::int64_t c : {1, 15, 16, 17, 33, 192, 193, 400}) {
      check_kernel(table(causal, {2, 12, c, c}, 0));
      check_kernel(table(causal, {2, 12, c, c}, 3, 4));
    }
    check_kernel(table(causal, {3, 20, 6, 30}, 0, 2));
    check_kernel(table(causal, {1, 600, 8, 8}, 0));  // causal: tiles of several widths
    check_kernel(table(causal, {1, 600, 8, 8}, 33));
    check_kernel(table(causal, {2, 0, 6, 30}, 2, 1));
  }
}

TEST(Aft, WithFiltersMatchesTheReference) {
  for (const bool causal : {false, true}) {
    for (const std::int64_t t : {1, 2, 17, 300}) {
      for (const std::int64_t taps : {1, 2, 11, 150}) check_kernel(line(causal, {1, t, 6, 6}, 3, taps));
    }
    for (const std::int64_t c : {1, 3, 15, 31, 32, 33, 64, 100}) check_kernel(line(causal, {2, 12, c, c}, 1, 3));
    check_kernel(line(causal, {3, 20, 6, 30}, 2, 4));
    check_kernel(line(causal, {2, 0, 6, 30}, 2, 4));
  }
  check_kernel(grid(5, 7, 2, 3, 12, {3, 3, 3}));
  check_kernel(grid(7, 5, 1, 12, 12, {1, 5, 2}));
  check_kernel(grid(2, 3, 1, 4, 4, {4, 7, 9}));  // reaches beyond all sides
  check_kernel(grid(1, 9, 1, 4, 8, {2, 1, 3}));
  check_kernel(grid(9, 1, 1, 4, 8, {2, 3, 1}));
  check_kernel(grid(14, 14, 1, 4, 40, {4, 11, 11}));
}

TEST(Aft, MatchesTheReferenceOnEveryInstructionSet) {
  testing::for_each_target([] {
    for (const bool causal : {false, true}) {
      check_kernel(simple(causal, {1, 30, 37, 37}));
      check_kernel(table(causal, {1, 70, 37, 37}, 0));
      check_kernel(table(causal, {1, 140, 37, 37}, 7));
      check_kernel(line(causal, {1, 30, 37, 37}, 37, 5));
    }
    check_kernel(grid(4, 6, 1, 5, 35, {5, 3, 3}));
  });
}

// Keys and biases beyond what e^x has in f32, or differences that it rounds away.
TEST(Aft, AnyFiniteKeysAndBiasesAreRight) {
  for (const float scale : {12.0F, 1e4F, 1e30F}) {
    for (const bool causal : {false, true}) {
      check_kernel(simple(causal, {2, 20, 9, 9}, scale));
      check_kernel(table(causal, {1, 70, 5, 5}, 0, 0, scale));
      check_kernel(table(causal, {1, 70, 5, 5}, 0, 0, 1, scale));
      check_kernel(table(causal, {1, 140, 5, 5}, 9, 0, scale));
      check_kernel(table(causal, {1, 140, 5, 5}, 9, 0, 1, scale));
      check_kernel(line(causal, {2, 20, 5, 10}, 5, 5, scale));
      check_kernel(line(causal, {2, 20, 5, 10}, 5, 5, 1, scale));
    }
    check_kernel(grid(5, 7, 2, 5, 20, {5, 3, 3}, scale));
    check_kernel(grid(5, 7, 2, 5, 20, {5, 3, 3}, 1, scale));
  }
}

// A key of one channel that leaves the range is no matter to the others; nor does a common size matter.
TEST(Aft, FarFromZeroIsAsNear) {
  for (testing::OpCase c :
       {simple(true, {1, 9, 4, 4}), table(false, {1, 9, 4, 4}, 0), line(true, {1, 9, 4, 4}, 2, 3)}) {
    for (float& key : c.inputs[0].mutable_data<float>()) key = std::round(key * 4) / 4;
    const Tensor want = testing::run_reference(c)[0];
    for (float& key : c.inputs[0].mutable_data<float>()) key += 30000;  // exact
    EXPECT_LE(relative_error(testing::run_reference(c)[0], want), kExact) << c.name;
    c.inputs[0].mutable_data<float>()[5] = -30000;
    check_kernel(c);
  }
}

TEST(Aft, MinusInfinityHidesAToken) {
  constexpr float kHidden = -std::numeric_limits<float>::infinity();
  for (const int window : {0, 3}) {
    testing::OpCase c = table(false, {1, 40, 20, 20}, window);
    for (std::int64_t t = 0; t < 40; ++t) {
      for (std::int64_t i = 0; i < 40; ++i) {
        if (i % 3 == 1 && i != t) c.inputs[2].mutable_data<float>()[static_cast<std::size_t>(t * 40 + i)] = kHidden;
      }
    }
    check_kernel(c);
  }
  testing::OpCase keys = simple(true, {1, 12, 4, 4});
  keys.inputs[0].mutable_data<float>()[4 * 4 + 1] = kHidden;
  check_kernel(keys);
}

// ---- one form against another, in f64 ----

std::vector<double> direct(const testing::OpCase& c) {
  const Tensor y = testing::run_reference(c)[0];
  return {y.data<double>().begin(), y.data<double>().end()};
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want, const std::string& name) {
  ASSERT_EQ(got.size(), want.size()) << name;
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], kExact) << name << " at " << i;
}

// Token by token.
std::vector<double> stepped(const testing::OpCase& c, std::size_t& state) {
  const Tensor k = c.inputs[0].to(DType::kF64);
  const Tensor v = c.inputs[1].to(DType::kF64);
  const auto bias = c.inputs.size() == 3 ? std::optional(c.inputs[2].to(DType::kF64)) : std::nullopt;
  const auto keys = static_cast<std::size_t>(k.shape()[2]);
  const auto channels = static_cast<std::size_t>(v.shape()[2]);
  AftRecurrence recurrence(*c.operation.as<Aft>(), k.shape()[2], v.shape()[2], bias);
  state = recurrence.state_size();
  std::vector<double> y(v.data<double>().size());
  for (std::size_t t = 0; t < static_cast<std::size_t>(v.shape()[1]); ++t) {
    recurrence.step(k.data<double>().subspan(t * keys, keys), v.data<double>().subspan(t * channels, channels),
                    std::span(y).subspan(t * channels, channels));
  }
  return y;
}

TEST(Aft, TokenByTokenIsTheDirectForm) {
  std::size_t state = 0;
  for (const float scale : {1.0F, 1e4F}) {
    for (const testing::OpCase& c : {simple(true, {1, 60, 6, 12}, scale), table(true, {1, 60, 6, 12}, 1, 3, scale),
                                     table(true, {1, 60, 6, 12}, 7, 3, scale), table(true, {1, 60, 6, 6}, 99, 0, scale),
                                     line(true, {1, 60, 6, 12}, 3, 5, scale), line(true, {1, 4, 6, 12}, 1, 9, scale)}) {
      expect_near(stepped(c, state), direct(c), c.name);
    }
  }
  stepped(simple(true, {1, 5, 6, 12}), state);
  EXPECT_EQ(state, 3U * 12);
  stepped(line(true, {1, 50, 6, 12}, 2, 5), state);
  EXPECT_EQ(state, 5U * (6 + 12) + 3U * 12);
}

TEST(Aft, WithoutABiasItIsRwkvWithoutDecay) {
  const testing::OpCase c = simple(true, {1, 30, 7, 7}, 20);
  const Tensor k = c.inputs[0].to(DType::kF64);
  const Tensor v = c.inputs[1].to(DType::kF64);
  const std::vector<double> zeros(7);
  CausalWkvRecurrence wkv(zeros, zeros);
  std::vector<double> y(v.data<double>().size());
  for (std::size_t t = 0; t < 30; ++t) {
    wkv.step(k.data<double>().subspan(t * 7, 7), v.data<double>().subspan(t * 7, 7), std::span(y).subspan(t * 7, 7));
  }
  expect_near(y, direct(c), c.name);
}

// All kinds of bias are tables.
TEST(Aft, FiltersAndWindowsAreTablesOfZerosElsewhere) {
  const std::int64_t tokens = 35;
  for (const bool causal : {false, true}) {
    testing::OpCase filter = causal ? line(true, {1, tokens, 2, 6}, 1, 5) : grid(5, 7, 1, 2, 6, {1, 3, 4});
    testing::OpCase full = table(causal, {1, tokens, 2, 6}, 0);
    const auto taps = filter.inputs[2].data<float>();
    const auto bias = full.inputs[2].mutable_data<float>();
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t i = 0; i < tokens; ++i) {
        const std::int64_t row = i / 7 - t / 7 + 1;
        const std::int64_t column = i % 7 - t % 7 + 2;
        const std::int64_t tap = causal ? i - t + 4 : row * 4 + column;
        const bool has = causal ? tap >= 0 && tap < 5 : row >= 0 && row < 3 && column >= 0 && column < 4;
        bias[static_cast<std::size_t>(t * tokens + i)] = has ? taps[static_cast<std::size_t>(tap)] : 0;
      }
    }
    expect_near(direct(filter), direct(full), filter.name);
    const testing::OpCase local = table(causal, {1, tokens, 2, 6}, 4);
    full.inputs[2] = local.inputs[2].clone();
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t i = 0; i < tokens; ++i) {
        if (std::abs(t - i) >= 4) full.inputs[2].mutable_data<float>()[static_cast<std::size_t>(t * tokens + i)] = 0;
      }
    }
    expect_near(direct(local), direct(full), local.name);
  }
}

TEST(Aft, CountsWhatHasABias) {
  const auto count = [](const testing::OpCase& c) {
    std::vector<TensorType> in;
    for (const Tensor& input : c.inputs) in.push_back(input.type());
    return c.operation.macs(in);
  };
  EXPECT_EQ(count(simple(false, {2, 10, 3, 6})), 2 * 2 * 10 * 6);
  EXPECT_EQ(count(table(true, {2, 10, 3, 6}, 0)), 2 * 2 * 10 * 10 * 6);
  EXPECT_EQ(count(table(false, {2, 10, 3, 6}, 4)), 2 * 2 * 10 * 7 * 6);
  EXPECT_EQ(count(table(true, {2, 10, 3, 6}, 4)), 2 * 2 * 10 * 4 * 6);
  EXPECT_EQ(count(line(true, {2, 10, 3, 6}, 3, 5)), 2 * 2 * 10 * 5 * 6);
  EXPECT_EQ(Operation(Aft{.causal = true, .window = 3}).attributes(), "causal=true, window=3, height=0, width=0");
}

// Scratch is linear in tokens beside the table: per token less than 64 numbers to a channel of each block.
TEST(Aft, MemoryIsLinearInTheTokens) {
  const auto scratch = [](const Aft& a, std::int64_t tokens, const std::optional<Shape>& bias) {
    std::vector<TensorType> in(2, TensorType{DType::kF32, {1, tokens, 32}});
    if (bias) in.push_back({DType::kF32, *bias});
    const std::vector<TensorType> out = infer(a, in);
    const std::vector<const Tensor*> constants(in.size());
    return make_kernel(a, {.in = in, .out = out, .constants = constants})->scratch_bytes();
  };
  for (const std::int64_t t : {4096, 8192}) {
    const Shape square{t, t};
    for (const bool causal : {false, true}) {
      EXPECT_LE(scratch({.causal = causal}, t, std::nullopt), static_cast<std::size_t>(t) * 1024);
      EXPECT_LE(scratch({.causal = causal}, t, square), static_cast<std::size_t>(t) * 1024);
      EXPECT_LE(scratch({.causal = causal, .window = 32}, t, square), static_cast<std::size_t>(t) * 1024);
      EXPECT_LE(scratch({.causal = causal}, t, Shape{4, 1, 11}), static_cast<std::size_t>(t) * 1024);
    }
  }
}

TEST(Aft, RefusesWhatDoesNotFit) {
  const auto error_of = testing::infer_error<Aft>;
  const Shape k{2, 20, 4};
  const Shape v{2, 20, 12};
  EXPECT_EQ(error_of({}, {k, v}), "no error");
  EXPECT_EQ(error_of({}, {k}), "[aft] takes k, v and maybe a bias, got 1 inputs");
  EXPECT_EQ(error_of({}, {k, {2, 20}}), "[aft] v must be [B,T,C], C ≥ 1, got [2,20]");
  for (const Shape& wrong : {Shape{2, 20, 5}, Shape{2, 20, 0}, Shape{1, 20, 4}, Shape{2, 19, 4}, Shape{20, 4}}) {
    EXPECT_EQ(error_of({}, {wrong, v}),
              fmt::format("[aft] k must be [B,T,K]=[2,20,K], K a divisor of 12, got {}", wrong));
  }
  EXPECT_EQ(error_of({.window = -1}, {k, v}), "[aft] window must not be negative, got -1");
  EXPECT_EQ(error_of({.window = 2, .width = 20}, {k, v}),
            "[aft] without a bias there is neither a window nor a grid, got window=2, a grid of 0 x 20");
  EXPECT_EQ(error_of({}, {k, v, {20}}), "[aft] the bias must be a table [T',T'] or filters [F,h,w], got [20]");
  EXPECT_EQ(error_of({.causal = true, .window = 3}, {k, v, {21, 21}}), "no error");
  EXPECT_EQ(error_of({}, {k, v, {19, 19}}), "[aft] a table of biases must be [T',T'] with T' ≥ 20, got [19,19]");
  EXPECT_EQ(error_of({.height = 4, .width = 5}, {k, v, {20, 20}}),
            "[aft] a table of biases has no grid, got one of 4 x 5");
  EXPECT_EQ(error_of({.height = 4, .width = 5}, {k, v, {2, 3, 3}}), "no error");
  EXPECT_EQ(error_of({}, {k, v, {3, 1, 3}}),
            "[aft] filters must be [F,h,w] without an empty axis, F a divisor of 4 keys, got [3,1,3]");
  EXPECT_EQ(error_of({}, {k, v, {4, 1, 0}}),
            "[aft] filters must be [F,h,w] without an empty axis, F a divisor of 4 keys, got [4,1,0]");
  EXPECT_EQ(error_of({.window = 2}, {k, v, {4, 1, 3}}),
            "[aft] a window is of a table of biases, got window=2 for filters");
  EXPECT_EQ(error_of({.height = -4, .width = -5}, {k, v, {4, 1, 3}}),
            "[aft] the grid must not be negative, got -4 x -5");
  EXPECT_EQ(error_of({.height = 4, .width = 4}, {k, v, {4, 1, 3}}), "[aft] a grid of 4 x 4 does not have 20 tokens");
  EXPECT_EQ(error_of({.causal = true}, {k, v, {4, 1, 3}}), "no error");
  EXPECT_EQ(error_of({.causal = true, .height = 4, .width = 5}, {k, v, {4, 1, 3}}),
            "[aft] what is causal is along a line: filters [F,1,w] and no grid expected, got [4,1,3] on 4 x 5");
  EXPECT_EQ(error_of({.causal = true}, {k, v, {4, 3, 3}}),
            "[aft] what is causal is along a line: filters [F,1,w] and no grid expected, got [4,3,3] on 0 x 0");
}

TEST(AftRecurrence, RefusesWhatHasNone) {
  const auto error_of = [](const Aft& a, std::optional<Tensor> bias) -> std::string {
    try {
      AftRecurrence recurrence(a, 2, 4, std::move(bias));
      const std::vector<double> k(2), v(4);
      std::vector<double> y(4);
      for (int t = 0; t < 4; ++t) recurrence.step(k, v, y);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const Tensor three = Tensor::zeros({DType::kF64, {3, 3}});
  const Tensor four = Tensor::zeros({DType::kF64, {4, 4}});
  EXPECT_EQ(error_of({.causal = true}, {}), "no error");
  EXPECT_EQ(error_of({}, {}), "[aft] only what is causal goes token by token; set causal");
  EXPECT_EQ(error_of({.causal = true}, four),
            "[aft] a table of biases without a window has no bounded state; set window");
  EXPECT_EQ(error_of({.causal = true, .window = 2}, four), "no error");
  EXPECT_EQ(error_of({.causal = true, .window = 2}, three), "[aft] a table of 3 rows has no bias for another token");
  EXPECT_EQ(error_of({.causal = true, .window = 2}, four.to(DType::kF32)),
            "[aft] inputs must have one element type, got f64[1,0,2] and f64[1,0,4] and f32[4,4]");
}

}  // namespace
}  // namespace weft
