#include "ops/bi_wkv/bi_wkv_grad.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "core/format.h"
#include "io/json.h"
#include "io/npy.h"
#include "kernel/testing/targets.h"
#include "ops/bi_wkv/bi_wkv_scan.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::random_tensor;
using testing::relative_error;

constexpr Wkv kForms[] = {Wkv::kPaper, Wkv::kReleasedKernel};

struct Inputs {
  Tensor k, v, w, u, gy;

  const Shape& shape() const { return k.shape(); }
};

// k, v, w, u.
using Gradients = std::array<Tensor, 4>;
constexpr std::string_view kNames[] = {"gk", "gv", "gw", "gu"};

struct Scales {
  float k = 1, w = 1, u = 1, k_shift = 0, w_shift = 0, u_shift = 0;
};

Inputs random_inputs(std::int64_t b, std::int64_t t, std::int64_t c, const Scales& s) {
  return {random_tensor({b, t, c}, 1, s.k, s.k_shift), random_tensor({b, t, c}, 2),
          random_tensor({c}, 3, s.w, s.w_shift), random_tensor({c}, 4, s.u, s.u_shift), random_tensor({b, t, c}, 5)};
}

// Decay and bonus as a model has them: divided by the number of tokens.
Inputs model_inputs(std::int64_t b, std::int64_t t, std::int64_t c) {
  const float per_token = 1 / static_cast<float>(std::max<std::int64_t>(t, 1));
  return random_inputs(b, t, c, {.w = 4 * per_token, .u = per_token});
}

Gradients empty_gradients(const Inputs& in, DType dtype) {
  return {Tensor(dtype, in.k.shape()), Tensor(dtype, in.k.shape()), Tensor(dtype, in.w.shape()),
          Tensor(dtype, in.w.shape())};
}

template <class T>
BiWkvGradients<T> spans(Gradients& g) {
  return {g[0].mutable_data<T>(), g[1].mutable_data<T>(), g[2].mutable_data<T>(), g[3].mutable_data<T>()};
}

Gradients direct(const Inputs& inputs, Wkv form) {
  const Tensor k = inputs.k.to(DType::kF64), v = inputs.v.to(DType::kF64), w = inputs.w.to(DType::kF64),
               u = inputs.u.to(DType::kF64), gy = inputs.gy.to(DType::kF64);
  Gradients out = empty_gradients(inputs, DType::kF64);
  bi_wkv_backward_reference(form, inputs.shape(),
                            {k.data<double>(), v.data<double>(), w.data<double>(), u.data<double>(), gy.data<double>()},
                            spans<double>(out));
  return out;
}

// ---- the reference ----

double loss(const std::array<Tensor, 4>& in, const Tensor& gy, Wkv form) {
  std::array<Tensor, 1> y = {Tensor(DType::kF64, in[0].shape())};
  reference(BiWkv{.wkv = form}, in, y);
  double sum = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(gy.elements()); ++i) {
    sum += y[0].data<double>()[i] * gy.data<double>()[i];
  }
  return sum;
}

TEST(BiWkvGrad, ReferenceIsTheSlopeOfTheForwardReference) {
  for (const Wkv form : kForms) {
    for (const std::int64_t tokens : {1, 2, 5, 33, 70}) {
      const Inputs inputs = random_inputs(2, tokens, 2, {.w = 0.02F, .w_shift = tokens == 5 ? -0.3F : 0.01F});
      const Gradients got = direct(inputs, form);
      const std::array<Tensor, 4> in = {inputs.k.to(DType::kF64), inputs.v.to(DType::kF64), inputs.w.to(DType::kF64),
                                        inputs.u.to(DType::kF64)};
      const Tensor gy = inputs.gy.to(DType::kF64);
      for (std::size_t input = 0; input < 4; ++input) {
        SCOPED_TRACE(fmt::format("{} T={} {}", name_of(form), tokens, kNames[input]));
        Tensor slope(DType::kF64, in[input].shape());
        for (std::size_t i = 0; i < static_cast<std::size_t>(slope.elements()); ++i) {
          // An error of h²/6 times a third derivative, which may be T² times the first for w, and of 2^-53·loss/h.
          constexpr double kStep = 1e-5;
          std::array<Tensor, 4> moved = in;
          moved[input] = in[input].clone();
          double& x = moved[input].mutable_data<double>()[i];
          x += kStep;
          const double above = loss(moved, gy, form);
          x -= 2 * kStep;
          slope.mutable_data<double>()[i] = (above - loss(moved, gy, form)) / (2 * kStep);
        }
        // For the gradients that are zero (k, w, u for T = 1, w for T = 2) the absolute error counts: relative_error
        // adds 1e-6 to the largest, and rounding leaves 2^-53·T/h < 1e-9.
        double largest = 0;
        for (const double x : slope.data<double>()) largest = std::max(largest, std::abs(x));
        EXPECT_LE(relative_error(got[input], slope), largest < 1e-8 ? 1e-3 : 1e-6);
      }
    }
  }
}

// ---- the golden cases: autograd of the paper's formula in float64 ----

struct Golden {
  std::string name;
  Inputs inputs;
  Gradients want;
  double tolerance;
};

std::vector<Golden> golden_cases() {
  const std::filesystem::path folder = WEFT_SOURCE_DIR "/tests/golden/bi_wkv-op";
  std::stringstream text;
  text << std::ifstream(folder / "meta.json").rdbuf();
  const Json meta = parse_json(text.str(), "meta.json");
  std::vector<Golden> cases;
  for (const Json& c : meta.at("cases")) {
    const auto read = [&](const char* what) { return read_npy(folder / c.at("files").at(what).get<std::string>()); };
    cases.push_back({.name = c.at("name").get<std::string>(),
                     .inputs = {read("k"), read("v"), read("w"), read("u"), read("cot_y")},
                     .want = {read("grad_k"), read("grad_v"), read("grad_w"), read("grad_u")},
                     .tolerance = c.at("tolerance_grad_f32").get<double>()});
  }
  return cases;
}

TEST(BiWkvGrad, ReferenceMatchesTheGoldenCases) {
  const std::vector<Golden> cases = golden_cases();
  EXPECT_EQ(cases.size(), 9U);
  for (const Golden& c : cases) {
    const Gradients got = direct(c.inputs, Wkv::kPaper);
    for (std::size_t i = 0; i < 4; ++i) {
      // The stored gradients are rounded to f32.
      EXPECT_LE(relative_error(got[i], c.want[i]), 0x1p-24) << c.name << " " << kNames[i];
    }
  }
}

// ---- the kernel ----

// Writes into memory full of NaN, so that what is left out shows.
Gradients scan(const Inputs& inputs, Wkv form, int threads = 1) {
  Gradients out = empty_gradients(inputs, DType::kF32);
  for (Tensor& x : out) std::ranges::fill(x.mutable_data<float>(), std::numeric_limits<float>::quiet_NaN());
  const Workers workers(threads);
  bi_wkv_backward(form, inputs.shape(),
                  {inputs.k.data<float>(), inputs.v.data<float>(), inputs.w.data<float>(), inputs.u.data<float>(),
                   inputs.gy.data<float>()},
                  spans<float>(out), workers);
  return out;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.type() == b.type() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// Within a tile of at most 256 tokens each step multiplies by an e^{−w} that is off by up to 2^-24, so a weight at its
// far end by up to 1.5e-5; a y, a gk or a gv mixes weights that are mostly off by the same factor. The golden cases ask
// for 1e-5 to 3e-4.
constexpr double kTolerance = 1e-5;

void expect_close(const Gradients& got, const Gradients& want, double tolerance, const std::string& name) {
  for (std::size_t i = 0; i < 4; ++i) EXPECT_LE(relative_error(got[i], want[i]), tolerance) << name << " " << kNames[i];
}

// What rounding each term of gw once, by up to 2^-23, may add up to; the largest over the channels. gw adds T² terms of
// both signs, which grow with the distance, and is some √T times less than they are without their signs. The released
// kernel's terms are as large.
double rounding_of_gw(const Inputs& in) {
  const std::int64_t tokens = in.shape()[1], channels = in.shape()[2];
  std::vector<double> sums(static_cast<std::size_t>(channels));
  for (std::int64_t row = 0; row < in.shape()[0] * channels; ++row) {
    const auto c = static_cast<std::size_t>(row % channels);
    const auto at = [&](const Tensor& x, std::int64_t i) -> double {
      return x.data<float>()[static_cast<std::size_t>((row / channels * tokens + i) * channels) + c];
    };
    const double w = in.w.data<float>()[c], u = in.u.data<float>()[c];
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto age = [&](std::int64_t i) { return i == t ? 0 : static_cast<double>(std::abs(t - i) - 1); };
      const auto exponent = [&](std::int64_t i) { return at(in.k, i) + (i == t ? u : -age(i) * w); };
      double largest = exponent(t), numerator = 0, denominator = 0, sum = 0;
      for (std::int64_t i = 0; i < tokens; ++i) largest = std::max(largest, exponent(i));
      const auto weight = [&](std::int64_t i) { return std::exp(exponent(i) - largest); };
      for (std::int64_t i = 0; i < tokens; ++i) numerator += weight(i) * at(in.v, i), denominator += weight(i);
      const double y = numerator / denominator;
      for (std::int64_t i = 0; i < tokens; ++i) sum += age(i) * weight(i) * std::abs(at(in.v, i) - y);
      sums[c] += sum / denominator * std::abs(at(in.gy, t));
    }
  }
  return sums.empty() ? 0 : 0x1p-23 * *std::ranges::max_element(sums);
}

double largest_of(const Tensor& x) {
  const Tensor wide = x.to(DType::kF64);
  double largest = 0;
  for (const double value : wide.data<double>()) largest = std::max(largest, std::abs(value));
  return largest;
}

void check(const Inputs& inputs, Wkv form, const std::string& name, double tolerance = kTolerance) {
  SCOPED_TRACE(fmt::format("{} {} {}", name_of(form), inputs.shape(), name));
  const Gradients got = scan(inputs, form), want = direct(inputs, form);
  for (const std::size_t i : {0, 1, 3}) EXPECT_LE(relative_error(got[i], want[i]), tolerance) << kNames[i];
  const double rounding = rounding_of_gw(inputs) / (largest_of(want[2]) + 1e-6);  // as relative_error has it
  EXPECT_LE(relative_error(got[2], want[2]), tolerance + rounding) << kNames[2];
}

TEST(BiWkvGrad, MatchesTheReference) {
  for (const Wkv form : kForms) {
    for (const std::int64_t t : {1, 2, 3, 16, 31, 32, 33, 63, 64, 65, 196, 197, 256, 257, 258, 300, 513, 1025}) {
      check(model_inputs(1, t, 5), form, "model");
    }
    for (const std::int64_t c : {1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 48, 100}) {
      check(model_inputs(2, 40, c), form, "model");
    }
    check(model_inputs(3, 270, 19), form, "model");
    check(model_inputs(5, 64, 96), form, "model");
  }
}

TEST(BiWkvGrad, MatchesTheReferenceOnEveryInstructionSet) {
  testing::for_each_target([] {
    for (const Wkv form : kForms) {
      for (const std::int64_t t : {40, 300}) {
        check(model_inputs(1, t, 37), form, "model");
        check(random_inputs(1, t, 18, {.k = 300, .w = 0.01F, .w_shift = -0.1F}), form, "k ~ 300");
      }
    }
  });
}

TEST(BiWkvGrad, MatchesTheReferenceWhereRunsAreLongerThanTiles) {
  const std::int64_t t = 32 * bi_wkv_scan::kTile + 77;
  check(random_inputs(1, t, 2, {.w = 4.0F / static_cast<float>(t)}), Wkv::kReleasedKernel, "long");
}

TEST(BiWkvGrad, MatchesTheGoldenCases) {
  for (const Golden& c : golden_cases()) {
    expect_close(scan(c.inputs, Wkv::kPaper), c.want, c.tolerance, c.name);
    check(c.inputs, Wkv::kReleasedKernel, c.name, c.tolerance);
  }
}

TEST(BiWkvGrad, IsStableForExtremeKeys) {
  for (const float k : {20.0F, 60.0F, 300.0F, 1000.0F}) {
    for (const std::int64_t t : {12, 197, 300}) {
      check(random_inputs(2, t, 18, {.k = k, .w = 0.1F}), Wkv::kPaper, fmt::format("k ~ {}", k));
      check(random_inputs(2, t, 18, {.k = k, .w = 0.01F, .w_shift = -0.1F}), Wkv::kReleasedKernel,
            fmt::format("k ~ {}", k));
    }
  }
}

TEST(BiWkvGrad, IsStableForExtremeDecayAndBonus) {
  for (const std::int64_t t : {1, 2, 33, 197, 300}) {
    for (const float w : {-30.0F, -2.0F, -0.5F, 0.0F, 0.5F, 2.0F, 30.0F, 200.0F}) {
      const std::string name = fmt::format("w = {}", w);
      check(random_inputs(1, t, 17, {.k = 3, .w = 0, .w_shift = w}), Wkv::kPaper, name);
      // For w > 0 the released kernel subtracts about e^w·e^{k_t}; a large bonus keeps the quotient well-conditioned.
      const float run = static_cast<float>(released_kernel_run(t));
      check(random_inputs(1, t, 17, {.k = 3, .w = 0, .w_shift = w, .u_shift = std::max(0.0F, w) * run + 8}),
            Wkv::kReleasedKernel, name);
    }
    for (const float u : {-200.0F, -90.0F, -30.0F, 30.0F, 60.0F, 200.0F}) {
      for (const Wkv form : kForms) {
        check(random_inputs(1, t, 17, {.w = 0.01F, .w_shift = -0.05F, .u_shift = u}), form, fmt::format("u = {}", u));
      }
    }
  }
}

// One token outweighs all others, but its weight is gone after a few steps.
TEST(BiWkvGrad, IsStableBesideASingleLargeKey) {
  for (const Wkv form : kForms) {
    for (const std::int64_t t : {32, 300}) {
      for (const std::size_t token : {0, 20}) {
        const bool decays = form == Wkv::kPaper || t <= 32;  // else see above: a decay of 5 would be ill-conditioned
        Inputs inputs = random_inputs(1, t, 5, {.w = 0, .k_shift = -200, .w_shift = decays ? 5.0F : -0.1F});
        for (std::size_t c = 0; c < 5; ++c) inputs.k.mutable_data<float>()[token * 5 + c] = 0;
        check(inputs, form, "one large key");
      }
    }
  }
}

// Some blocks of channels leave the range of f32 and others do not; keys reach right up to the border.
TEST(BiWkvGrad, ChoosesThePathPerBlock) {
  for (const std::int64_t t : {100, 400}) {
    Inputs inputs = model_inputs(2, t, 70);
    const auto k = inputs.k.mutable_data<float>();
    for (std::size_t i = 0; i < k.size(); ++i) {
      const std::size_t channel = i % 70;
      if (channel / 16 == 1) k[i] *= 100;
      if (channel == 50) k[i] = i / 70 % 2 == 0 ? 0 : 29.9F - 5;
      if (channel == 51) k[i] = i / 70 % 2 == 0 ? 0 : -39.9F;
      if (channel == 52) k[i] = i / 70 % 2 == 0 ? 700 : 700 - 39.9F;
    }
    for (const Wkv form : kForms) check(inputs, form, "mixed");
  }
}

TEST(BiWkvGrad, ResultsDoNotDependOnTheThreads) {
  for (const Wkv form : kForms) {
    for (const float k : {1.0F, 100.0F}) {
      for (const std::int64_t t : {64, 1025}) {
        const Inputs inputs = random_inputs(3, t, 70, {.k = k, .w = 0.001F});
        const Gradients one = scan(inputs, form, 1);
        for (const int threads : {2, 7}) {
          const Gradients many = scan(inputs, form, threads);
          for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(many[i], one[i])) << kNames[i];
        }
      }
    }
  }
}

}  // namespace
}  // namespace weft
