#include "ops/causal_wkv/causal_wkv_grad.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/format.h"
#include "kernel/testing/targets.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::random_tensor;
using testing::relative_error;

// k, v, w, u, state; and of each its gradient.
using Five = std::array<Tensor, 5>;
constexpr std::string_view kNames[] = {"gk", "gv", "gw", "gu", "gstate"};

// Sums are f64 and results are rounded to f32, 2^-25 of them in the mean; gw and gu add rounding errors of exponents,
// 2^-52 of each, that are less.
constexpr double kTolerance = 0x1p-23;

struct Scales {
  float k = 1, w = 0.5F, u = 1, k_shift = 0, w_shift = 0.3F;
};

Five random_inputs(std::int64_t b, std::int64_t t, std::int64_t c, const Scales& s = {}) {
  Five in = {random_tensor({b, t, c}, 1, s.k, s.k_shift), random_tensor({b, t, c}, 2),
             random_tensor({c}, 3, s.w, s.w_shift), random_tensor({c}, 4, s.u), random_tensor({b, 3, c}, 5)};
  const auto state = in[4].mutable_data<float>();
  for (std::size_t i = 0; i < state.size(); ++i) {
    if (i / static_cast<std::size_t>(c) % 3 == 1) state[i] = 1 + std::abs(state[i]);
  }
  return in;
}

Five empty_like(const Five& in, DType dtype) {
  Five out = in;
  for (Tensor& x : out) x = Tensor(dtype, x.shape());
  return out;
}

template <class T>
CausalWkvBackwardInput<T> to_read(const Five& in, const Tensor& gy) {
  return {in[0].data<T>(), in[1].data<T>(), in[2].data<T>(), in[3].data<T>(), in[4].data<T>(), gy.data<T>()};
}
template <class T>
CausalWkvGradients<T> to_write(Five& out) {
  return {out[0].mutable_data<T>(), out[1].mutable_data<T>(), out[2].mutable_data<T>(), out[3].mutable_data<T>(),
          out[4].mutable_data<T>()};
}

Tensor weights_of(const Five& in) { return random_tensor(in[0].shape(), 6); }

Five in_f64(const Five& in) {
  Five wide = in;
  for (Tensor& x : wide) x = x.to(DType::kF64);
  return wide;
}

Five direct(const Five& in, const Tensor& gy) {
  Five out = empty_like(in, DType::kF64);
  causal_wkv_backward_reference(in[0].shape(), to_read<double>(in_f64(in), gy.to(DType::kF64)), to_write<double>(out));
  return out;
}

// Into memory full of NaN, so that what is left out shows.
Five scan(const Five& in, const Tensor& gy, int threads = 1) {
  Five out = empty_like(in, DType::kF32);
  for (Tensor& x : out) std::ranges::fill(x.mutable_data<float>(), std::numeric_limits<float>::quiet_NaN());
  const Workers workers(threads);
  causal_wkv_backward(in[0].shape(), to_read<float>(in, gy), to_write<float>(out), workers);
  return out;
}

void check(const Five& in, const std::string& name, double tolerance = kTolerance) {
  const Tensor gy = weights_of(in);
  const Five want = direct(in, gy), got = scan(in, gy);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_LE(relative_error(got[i], want[i]), tolerance) << name << " " << kNames[i] << " of " << in[0].shape().str();
  }
}

double loss(const Five& in, const Tensor& gy) {
  std::array<Tensor, 2> out = {Tensor(DType::kF64, in[0].shape()), Tensor(DType::kF64, in[4].shape())};
  reference(CausalWkv{}, in, out);
  double sum = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(gy.elements()); ++i) {
    sum += out[0].data<double>()[i] * gy.data<double>()[i];
  }
  return sum;
}

TEST(CausalWkvGrad, ReferenceIsTheSlopeOfTheForwardReference) {
  for (const std::int64_t tokens : {1, 2, 5, 20}) {
    const Five f32 = random_inputs(2, tokens, 2);
    const Tensor gy = weights_of(f32).to(DType::kF64);
    const Five in = in_f64(f32), got = direct(f32, weights_of(f32));
    for (std::size_t input = 0; input < 5; ++input) {
      Tensor slope(DType::kF64, in[input].shape());
      for (std::size_t i = 0; i < static_cast<std::size_t>(slope.elements()); ++i) {
        // An error of h²/6 times a third derivative, and of 2^-53·loss/h.
        constexpr double kStep = 1e-5;
        Five moved = in;
        moved[input] = in[input].clone();
        double& x = moved[input].mutable_data<double>()[i];
        x += kStep;
        const double above = loss(moved, gy);
        x -= 2 * kStep;
        slope.mutable_data<double>()[i] = (above - loss(moved, gy)) / (2 * kStep);
      }
      // gw of a single token is zero: there the absolute error counts, 2^-53/h < 1e-10 over the 1e-6 that is added.
      const double tolerance = input == 2 && tokens == 1 ? 1e-3 : 1e-7;
      EXPECT_LE(relative_error(got[input], slope), tolerance) << kNames[input] << " T=" << tokens;
    }
  }
}

TEST(CausalWkvGrad, MatchesTheReference) {
  testing::for_each_target([] {
    for (const std::int64_t t : {1, 2, 3, 63, 64, 65, 129, 200}) check(random_inputs(1, t, 5), "");
    for (const std::int64_t c : {1, 3, 8, 9, 15, 16, 17, 33}) check(random_inputs(3, 20, c), "");
  });
}

TEST(CausalWkvGrad, MatchesTheReferenceForDecaysAndKeysOfAnySize) {
  for (const float w : {-2.0F, -0.05F, 0.0F, 0.001F, 2.0F, 30.0F}) {
    for (const float k : {1.0F, 20.0F}) {
      // Where one token outweighs all others what is left is a difference of products: 2^-53 of e^20 or so.
      check(random_inputs(2, 150, 5, {.k = k, .w = 0, .w_shift = w}), fmt::format("w = {}, k ~ {}", w, k));
    }
  }
  check(random_inputs(2, 70, 5, {.k = 300}), "k ~ 300");
  check(random_inputs(2, 70, 5, {.k_shift = 1e4F}), "k about 1e4");
  check(random_inputs(2, 70, 5, {.k_shift = -1e4F}), "k about -1e4");
}

TEST(CausalWkvGrad, AnEmptyStateHasNone) {
  for (const float exponent : {CausalWkv::kEmptyExponent, 0.0F}) {
    Five in = random_inputs(2, 30, 5);
    const auto state = in[4].mutable_data<float>();
    for (std::size_t i = 0; i < state.size(); ++i) state[i] = i / 5 % 3 == 2 ? exponent : 0;
    check(in, "empty");
    const Five got = scan(in, weights_of(in));
    EXPECT_EQ(std::ranges::count(got[4].data<float>(), 0.0F), 30);
  }
}

TEST(CausalWkvGrad, DoesNotDependOnTheThreads) {
  const Five in = random_inputs(3, 150, 70);
  const Tensor gy = weights_of(in);
  const Five one = scan(in, gy);
  for (const int threads : {2, 5}) {
    const Five many = scan(in, gy, threads);
    for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(std::memcmp(many[i].raw(), one[i].raw(), one[i].bytes()), 0);
  }
}

// Σ_t gk_t over everything that weighs, the state's exponent among it, is zero: adding a constant to all changes
// nothing. Over a long sequence, for which the direct form would take too long.
TEST(CausalWkvGrad, SumsToZeroOverLongSequences) {
  const Five in = random_inputs(1, 20000, 3, {.w = 0.001F, .w_shift = 0.002F});
  const Five got = scan(in, weights_of(in));
  for (std::size_t c = 0; c < 3; ++c) {
    double sum = got[4].data<float>()[6 + c], size = std::abs(sum);
    for (std::size_t i = c; i < 60000; i += 3) {
      sum += double{got[0].data<float>()[i]};
      size += std::abs(double{got[0].data<float>()[i]});
    }
    EXPECT_LE(std::abs(sum), 0x1p-24 * size);  // of rounding each to f32
  }
}

TEST(CausalWkvGrad, TakesEmptyTensors) {
  for (const Shape& shape : {Shape{0, 5, 3}, Shape{2, 0, 3}, Shape{2, 5, 0}}) {
    const Five in = random_inputs(shape[0], shape[1], shape[2]);
    const Five got = scan(in, weights_of(in));
    for (const float x : got[2].data<float>()) EXPECT_EQ(x, 0);
    for (const float x : got[4].data<float>()) EXPECT_EQ(x, 0);
  }
}

TEST(CausalWkvGrad, RefusesSizesThatDoNotFit) {
  const Five in = random_inputs(2, 5, 3);
  const Tensor gy = weights_of(in);
  const Workers workers(1);
  Five out = empty_like(in, DType::kF32);
  out[4] = Tensor(DType::kF32, {2, 3});
  try {
    causal_wkv_backward({2, 5, 3}, to_read<float>(in, gy), to_write<float>(out), workers);
    ADD_FAILURE();
  } catch (const ShapeError& error) {
    EXPECT_STREQ(error.what(), "[causal_wkv_backward] gstate: expected 18 elements, B·3·C of [2,5,3], got 6");
  }
  EXPECT_THROW(causal_wkv_backward({10, 3}, to_read<float>(in, gy), to_write<float>(out), workers), ShapeError);
}

}  // namespace
}  // namespace weft
