#include "ops/causal_wkv/causal_wkv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernel/testing/targets.h"
#include "ops/bi_wkv/bi_wkv.h"
#include "ops/causal_wkv/causal_wkv_scan.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;
using testing::relative_error;

// A weight is an exponential that is good to 2^-22, of a difference that is rounded to 2^-24 of itself, at most about
// 2^-22 of the weight; a y mixes weights, of which each has an error of its own.
constexpr double kTolerance = 1e-6;

struct Inputs {
  Tensor k, v, w, u, state;

  std::vector<Tensor> all() const { return {k, v, w, u, state}; }
};

struct Scales {
  float k = 1, w = 0.5F, u = 1, k_shift = 0, w_shift = 1, u_shift = 0;
};

Tensor empty_state(std::int64_t b, std::int64_t c) {
  Tensor state = Tensor::zeros({DType::kF32, {b, 3, c}});
  const auto data = state.mutable_data<float>();
  for (std::size_t i = 0; i < data.size(); ++i) {
    if (i / static_cast<std::size_t>(c) % 3 == 2) data[i] = CausalWkv::kEmptyExponent;
  }
  return state;
}

// As after some tokens.
Tensor some_state(std::int64_t b, std::int64_t c) {
  Tensor state = random_tensor({b, 3, c}, 5);
  const auto data = state.mutable_data<float>();
  for (std::size_t i = 0; i < data.size(); ++i) {
    if (i / static_cast<std::size_t>(c) % 3 == 1) data[i] = 1 + std::abs(data[i]);
  }
  return state;
}

Inputs random_inputs(std::int64_t b, std::int64_t t, std::int64_t c, const Scales& s = {}) {
  return {random_tensor({b, t, c}, 1, s.k, s.k_shift), random_tensor({b, t, c}, 2),
          random_tensor({c}, 3, s.w, s.w_shift), random_tensor({c}, 4, s.u, s.u_shift), some_state(b, c)};
}

void check(const Inputs& inputs, const std::string& name, double tolerance = kTolerance) {
  check_kernel({.name = fmt::format("{} {}", inputs.k.shape(), name),
                .operation = CausalWkv{},
                .inputs = inputs.all(),
                .tolerance = tolerance});
}

// y and the next state.
std::vector<Tensor> direct(const Inputs& inputs) {
  return testing::run_reference({.operation = CausalWkv{}, .inputs = inputs.all()});
}

// The CPU kernel on its own; `bf16`: k, v and y are.
std::vector<Tensor> scan(const Inputs& inputs, int threads = 1, bool bf16 = false) {
  std::vector<TensorType> in;
  std::vector<Tensor> data = inputs.all();
  for (const Tensor& input : data) in.push_back(input.type());
  const std::vector<TensorType> out = infer(CausalWkv{}, in);
  const std::vector<const Tensor*> constants(in.size());
  const auto kernel = make_kernel(CausalWkv{}, {.in = in, .out = out, .constants = constants, .threads = threads});
  std::vector<Tensor> results = {Tensor(out[0]), Tensor(out[1])};
  if (bf16) {
    for (const int i : {0, 1}) {
      kernel->give_bf16(i);
      data[static_cast<std::size_t>(i)] = data[static_cast<std::size_t>(i)].to(DType::kBF16);
    }
    EXPECT_TRUE(kernel->encode_output(DType::kBF16));
    results[0] = Tensor(DType::kBF16, out[0].shape);
  }
  std::vector<const std::byte*> from;
  for (const Tensor& input : data) from.push_back(input.raw());
  const std::vector<std::byte*> to = {results[0].mutable_raw(), results[1].mutable_raw()};
  Tensor scratch(DType::kU8, {static_cast<std::int64_t>(kernel->scratch_bytes())});
  const Workers workers(threads);
  workers.enter([&] { kernel->run({.in = from, .out = to, .scratch = scratch.mutable_raw(), .workers = workers}); });
  return results;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.type() == b.type() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

std::vector<double> as_double(const Tensor& x) {
  const Tensor wide = x.to(DType::kF64);
  return {wide.data<double>().begin(), wide.data<double>().end()};
}

// Tokens [begin, end) of x [1,T,C].
Tensor tokens_of(const Tensor& x, std::int64_t begin, std::int64_t end) {
  const auto channels = static_cast<std::size_t>(x.shape()[2]);
  const auto rows = x.data<float>().subspan(static_cast<std::size_t>(begin) * channels,
                                            static_cast<std::size_t>(end - begin) * channels);
  return Tensor::of(rows, {1, end - begin, x.shape()[2]});
}

// y of one sequence step by step in f64, and the state.
std::vector<Tensor> stepped(const Inputs& inputs) {
  const auto channels = static_cast<std::size_t>(inputs.k.shape()[2]);
  const std::vector<double> k = as_double(inputs.k), v = as_double(inputs.v);
  CausalWkvRecurrence recurrence(as_double(inputs.w), as_double(inputs.u));
  recurrence.restore(as_double(inputs.state));
  Tensor y(DType::kF64, inputs.k.shape()), next(DType::kF64, inputs.state.shape());
  for (std::size_t at = 0; at < k.size(); at += channels) {
    recurrence.step(std::span(k).subspan(at, channels), std::span(v).subspan(at, channels),
                    y.mutable_data<double>().subspan(at, channels));
  }
  std::ranges::copy(recurrence.state(), next.mutable_data<double>().begin());
  return {y, next};
}

// aa, bb and pp have sizes of their own. pp may be off by a rounding error for each time that the state was stored, for
// which aa and bb make up.
void expect_same_state(const Tensor& got, const Tensor& want, double tolerance, const std::string& name,
                       std::int64_t stores = 1) {
  const std::vector<double> g = as_double(got), w = as_double(want);
  const std::size_t channels = g.size() / 3;
  for (std::size_t c = 0; c < channels; ++c) {
    const double pp = w[2 * channels + c], more = g[2 * channels + c] - pp;
    EXPECT_LE(std::abs(more), static_cast<double>(stores) * 0x1p-24 * (1 + std::abs(pp))) << name;
    EXPECT_LE(std::abs(g[channels + c] * std::exp(more) - w[channels + c]), tolerance * w[channels + c]) << name;
    EXPECT_LE(std::abs(g[c] * std::exp(more) - w[c]), tolerance * w[channels + c]) << name;
  }
}

// ---- the scan against the direct form ----

TEST(CausalWkv, MatchesTheReference) {
  for (const std::int64_t t : {1, 2, 3, 16, 63, 64, 65, 130, 257}) check(random_inputs(1, t, 5), "");
  for (const std::int64_t c : {1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 48, 100}) check(random_inputs(2, 20, c), "");
  check(random_inputs(3, 70, 19), "");
  check(random_inputs(5, 1, 768), "one step");
  for (Inputs inputs : {random_inputs(2, 40, 19), random_inputs(3, 1, 33)}) {
    inputs.state = empty_state(inputs.k.shape()[0], inputs.k.shape()[2]);
    check(inputs, "from the beginning");
  }
}

TEST(CausalWkv, MatchesTheReferenceForDecaysOfAnySize) {
  for (const float w : {-30.0F, -2.0F, -0.05F, 0.0F, 0.001F, 0.1F, 2.0F, 30.0F, 200.0F}) {
    for (const std::int64_t t : {1, 2, 33, 200}) {
      for (const float u : {-200.0F, 0.0F, 60.0F}) {
        check(random_inputs(1, t, 17, {.k = 3, .w = 0, .u = 0, .w_shift = w, .u_shift = u}),
              fmt::format("w = {}, u = {}", w, u));
      }
    }
  }
}

TEST(CausalWkv, MatchesTheReferenceForKeysOfAnySize) {
  for (const float k : {20.0F, 300.0F, 1e4F, 1e20F, 1e37F}) {
    for (const std::int64_t t : {1, 12, 200}) {
      check(random_inputs(2, t, 18, {.k = k}), fmt::format("k ~ {}", k));
      check(random_inputs(2, t, 18, {.k = 1, .k_shift = -k}), fmt::format("k about -{}", k));
    }
  }
}

TEST(CausalWkv, StartsFromNothingWhateverTheKeys) {
  for (const float k : {-300.0F, -1e30F, -3e38F, 3e38F}) {
    for (const std::int64_t t : {1, 2, 70}) {
      // Beside the largest keys w and u vanish in f64, too.
      const bool is_large = std::abs(k) > 1e6F;
      Inputs inputs = random_inputs(2, t, 17, {.k = 0, .w = is_large ? 0 : 0.5F, .u = 0, .k_shift = k, .w_shift = 0});
      inputs.state = empty_state(2, 17);
      // pp is rounded to f32, and bb, up to t, makes up for it.
      check(inputs, fmt::format("k = {}", k), kTolerance + static_cast<double>(t) * 0x1p-25);
    }
  }
}

TEST(CausalWkv, TakesEmptyTensors) {
  const Inputs none = random_inputs(2, 0, 5);
  const std::vector<Tensor> results = scan(none);
  EXPECT_TRUE(same_bits(results[1], none.state));
  EXPECT_TRUE(same_bits(direct(none)[1].to(DType::kF32), none.state));
  check(none, "no tokens");
  check(random_inputs(0, 7, 5), "no batch");
  check(random_inputs(2, 30, 0), "no channels");
}

TEST(CausalWkv, LeavesOutTokensOfNoWeight) {
  Inputs inputs = random_inputs(1, 40, 5);
  const auto k = inputs.k.mutable_data<float>();
  for (std::size_t i = 0; i < k.size(); ++i) {
    if (i / 5 % 3 == 0) k[i] = -std::numeric_limits<float>::infinity();
  }
  check(inputs, "masked");
  std::ranges::fill(inputs.k.mutable_data<float>(), -std::numeric_limits<float>::infinity());
  check(inputs, "the state alone");
}

TEST(CausalWkv, PassesOnWhatIsNotANumber) {
  for (const std::size_t input : {0, 1, 2, 3, 4}) {
    std::vector<Tensor> all = random_inputs(1, 20, 20).all();
    all[input].mutable_data<float>()[input < 2 ? 10 * 20 + 3 : 3] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<Tensor> results = scan({all[0], all[1], all[2], all[3], all[4]});
    for (std::size_t i = 0; i < 400; ++i) {
      const bool is_nan = i % 20 == 3 && (input >= 2 || i / 20 >= 10);
      EXPECT_EQ(std::isnan(results[0].data<float>()[i]), is_nan) << "input " << input << " element " << i;
    }
    EXPECT_EQ(std::isnan(results[1].data<float>()[3]), input != 3);
    EXPECT_FALSE(std::isnan(results[1].data<float>()[4]));
  }
}

// Without decay and bonus it is the causal AFT-simple: Σ e^{k_i}·v_i / Σ e^{k_i} over i ≤ t.
TEST(CausalWkv, IsAftSimpleWithoutDecayAndBonus) {
  Inputs inputs = random_inputs(1, 300, 6, {.w = 0, .u = 0, .w_shift = 0});
  inputs.state = empty_state(1, 6);
  const std::vector<double> k = as_double(inputs.k), v = as_double(inputs.v), y = as_double(scan(inputs)[0]);
  for (std::size_t c = 0; c < 6; ++c) {
    double numerator = 0, denominator = 0;
    for (std::size_t i = c; i < k.size(); i += 6) {
      numerator += std::exp(k[i]) * v[i];
      denominator += std::exp(k[i]);
      EXPECT_NEAR(y[i], numerator / denominator, 4 * kTolerance);  // |v| up to 4
    }
  }
}

// y_t is that of the last token of the bidirectional form of the sequence cut there.
TEST(CausalWkv, IsTheBidirectionalFormOfEachPrefix) {
  Inputs inputs = random_inputs(1, 30, 3);
  inputs.state = empty_state(1, 3);
  const Tensor y = direct(inputs)[0];
  for (std::int64_t t = 1; t <= 30; ++t) {
    const Tensor both = testing::run_reference(
        {.operation = BiWkv{},
         .inputs = {tokens_of(inputs.k, 0, t), tokens_of(inputs.v, 0, t), inputs.w, inputs.u}})[0];
    for (std::size_t i = static_cast<std::size_t>(3 * t - 3); i < static_cast<std::size_t>(3 * t); ++i) {
      EXPECT_NEAR(y.data<double>()[i], both.data<double>()[i], 1e-12);
    }
  }
}

// ---- step by step, and cut ----

TEST(CausalWkv, StepsMatchTheDirectForm) {
  for (const float k : {1.0F, 300.0F}) {
    for (const float w : {-0.5F, 0.0F, 0.5F}) {
      for (const bool from_nothing : {true, false}) {
        Inputs inputs = random_inputs(1, 150, 4, {.k = k, .w = 0.3F, .w_shift = w});
        if (from_nothing) inputs.state = empty_state(1, 4);
        const std::vector<Tensor> got = stepped(inputs), want = direct(inputs);
        // Exponents of up to 1000 take a rounding error of 2^-43 with each of 150 steps.
        EXPECT_LE(relative_error(got[0], want[0]), 1e-11);
        expect_same_state(got[1], want[1], 1e-11, "");
      }
    }
  }
}

TEST(CausalWkvRecurrence, GoesOnFromAStateThatWasKept) {
  const std::vector<double> w{0.1, 0.2}, u{0.3, -0.4}, k{0.5, -1.0}, v{2.0, 3.0};
  CausalWkvRecurrence first(w, u), second(w, u);
  std::vector<double> y(2), z(2);
  first.step(k, v, y);
  second.restore(first.state());
  first.step(v, k, y);
  second.step(v, k, z);
  EXPECT_EQ(y, z);
  EXPECT_THROW(second.restore(y), ShapeError);
  EXPECT_THROW(CausalWkvRecurrence(w, std::vector<double>(3)), ShapeError);
  EXPECT_THROW(first.step(k, v, std::span(y).first(1)), ShapeError);
}

// The whole sequence at once and cut anywhere, with the state in f32, over thousands of tokens.
void check_cuts(const Scales& scales, double tolerance) {
  constexpr std::int64_t kTokens = 4099;
  Inputs inputs = random_inputs(1, kTokens, 20, scales);
  inputs.v = random_tensor(inputs.v.shape(), 2, 1, 1);  // so that y does not vanish with its mean
  inputs.state = empty_state(1, 20);
  const std::vector<Tensor> want = stepped(inputs), whole = scan(inputs);
  EXPECT_LE(relative_error(whole[0], want[0]), kTolerance);
  expect_same_state(whole[1], want[1], kTolerance, "whole");
  std::mt19937 random(7);
  for (const unsigned longest : {1U, 3U, 1500U}) {
    const std::string name = fmt::format("cut into up to {}, w about {}", longest, scales.w_shift);
    Inputs part = inputs;
    Tensor y(DType::kF32, inputs.k.shape());
    std::int64_t cuts = 0;
    for (std::int64_t begin = 0; begin < kTokens; ++cuts) {
      const std::int64_t end = std::min(kTokens, begin + 1 + static_cast<std::int64_t>(random() % longest));
      part.k = tokens_of(inputs.k, begin, end);
      part.v = tokens_of(inputs.v, begin, end);
      const std::vector<Tensor> results = scan(part);
      std::ranges::copy(results[0].data<float>(),
                        y.mutable_data<float>().begin() + static_cast<std::ptrdiff_t>(begin * 20));
      part.state = results[1];
      begin = end;
    }
    EXPECT_LE(relative_error(y, want[0]), tolerance) << name;
    expect_same_state(part.state, want[1], tolerance, name, cuts);
  }
}

TEST(CausalWkv, MayBeCutAnywhere) {
  // Each cut rounds aa and bb to f32, by 2^-25 of themselves in the mean: some 2^-25·√4099 = 2e-6, of 20 channels in
  // the worst twice that.
  check_cuts({.w = 0.2F}, 4e-6);
  check_cuts({.w = 0, .w_shift = 0}, 4e-6);
  check_cuts({.w = 0, .w_shift = 1e-3F}, 4e-6);
  check_cuts({.k = 3, .w = 0.005F, .k_shift = 40, .w_shift = 0.02F}, 4e-6);
  // Where weights grow new tokens soon weigh nothing, so that all roundings may go the same way: 2^-24·4099.
  check_cuts({.w = 0, .w_shift = -0.05F}, 2.5e-4);
}

// ---- long sequences, and threads ----

TEST(CausalWkv, StaysAccurateOverAMillionTokens) {
  constexpr std::int64_t kTokens = causal_wkv_scan::kLongest + 100;
  Inputs inputs = random_inputs(1, kTokens, 4, {.u = 0});
  inputs.v = random_tensor({1, kTokens, 4}, 2, 1, 1);
  inputs.state = empty_state(1, 4);
  const std::vector<float> w = {0, 3.3e-6F, -9e-6F, 1e-2F};
  std::ranges::copy(w, inputs.w.mutable_data<float>().begin());
  const std::vector<Tensor> want = stepped(inputs);
  for (const int threads : {1, 4}) {  // in one piece, and in segments
    const std::vector<Tensor> got = scan(inputs, threads);
    EXPECT_LE(relative_error(got[0], want[0]), kTolerance);
    expect_same_state(got[1], want[1], kTolerance, fmt::format("{} threads", threads), 40);
  }
}

TEST(CausalWkv, SharesLongSequencesOfFewChannelsAmongThreads) {
  using causal_wkv_scan::Segments;
  EXPECT_FALSE(Segments(1'000'000, 4, 2).is_shared());
  EXPECT_FALSE(Segments(1'000'000, 1, 1).is_shared());
  EXPECT_FALSE(Segments(2000, 1, 2).is_shared());
  EXPECT_TRUE(Segments(1'000'000, 1, 2).is_shared());
  EXPECT_TRUE(Segments(16384, 3, 16).is_shared());
  for (const std::int64_t t : {4096, 5000, 70001}) {
    const Segments segments(t, 1, 4);
    ASSERT_GT(segments.count(), 1);
    std::int64_t next = 0;
    for (std::int64_t i = 0; i < segments.count(); ++i) {
      EXPECT_EQ(segments.begin(i), next);
      next = segments.end(i);
      EXPECT_TRUE(segments.begin(i) < next && next - segments.begin(i) <= segments.longest());
    }
    EXPECT_EQ(next, t);
  }
  for (const float k : {1.0F, 300.0F}) {
    const Inputs inputs = random_inputs(1, 5000, 18, {.k = k, .w_shift = 0.01F});
    const std::vector<Tensor> want = stepped(inputs), got = scan(inputs, 7);
    EXPECT_LE(relative_error(got[0], want[0]), kTolerance);
    expect_same_state(got[1], want[1], kTolerance, "shared", 10);
    EXPECT_TRUE(same_bits(scan(inputs, 7)[0], got[0]));
    const std::vector<Tensor> rounded = scan(inputs, 7, /*bf16=*/true);
    EXPECT_LE(relative_error(rounded[0], want[0]), k * 0x1p-7);  // keys are rounded to 2^-9
  }
  // Over k, and over v, in either way.
  check(random_inputs(1, 4096, 3, {.w_shift = 0.01F}), "shared");
}

TEST(CausalWkv, ReadsAndWritesBf16) {
  for (const std::int64_t c : {5, 16, 37}) {
    Inputs inputs = random_inputs(2, 33, c);
    inputs.k = inputs.k.to(DType::kBF16).to(DType::kF32);
    inputs.v = inputs.v.to(DType::kBF16).to(DType::kF32);
    testing::for_each_target([&] {
      const std::vector<Tensor> wide = scan(inputs), narrow = scan(inputs, 1, /*bf16=*/true);
      EXPECT_TRUE(same_bits(narrow[0], wide[0].to(DType::kBF16)));
      EXPECT_TRUE(same_bits(narrow[1], wide[1]));
    });
  }
}

// ---- the interface ----

TEST(CausalWkv, HasTheShapesOfTheKeysAndOfTheState) {
  const Inputs inputs = random_inputs(2, 5, 3);
  std::vector<TensorType> in;
  for (const Tensor& input : inputs.all()) in.push_back(input.type());
  EXPECT_EQ(infer(CausalWkv{}, in), (std::vector<TensorType>{in[0], in[4]}));
  EXPECT_EQ(macs(CausalWkv{}, in), 6 * 2 * 5 * 3);
}

TEST(CausalWkv, RefusesShapesThatDoNotFit) {
  const auto error_of = [](const std::vector<Shape>& in) { return testing::infer_error(CausalWkv{}, in); };
  const Shape k{2, 5, 3}, c{3}, state{2, 3, 3};
  EXPECT_EQ(error_of({k, k, c, c, state}), "no error");
  EXPECT_EQ(error_of({k, k, c, c}), "[causal_wkv] takes k, v, w, u and a state, got 4 inputs");
  EXPECT_EQ(error_of({c, k, c, c, state}), "[causal_wkv] k must be [B,T,C], got [3]");
  EXPECT_EQ(error_of({k, {2, 4, 3}, c, c, state}), "[causal_wkv] v must have the shape of k, [2,5,3], got [2,4,3]");
  EXPECT_EQ(error_of({k, k, {6}, c, state}), "[causal_wkv] w (decay) must be [C]=[3], got [6]");
  EXPECT_EQ(error_of({k, k, c, {1, 3}, state}), "[causal_wkv] u (bonus) must be [C]=[3], got [1,3]");
  EXPECT_EQ(error_of({k, k, c, c, {3, 3}}), "[causal_wkv] the state must be [B,3,C]=[2,3,3], got [3,3]");
}

}  // namespace
}  // namespace weft
