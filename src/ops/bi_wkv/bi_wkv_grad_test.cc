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
  bi_wkv_backward_reference(
      form, inputs.shape(),
      {k.data<double>(), v.data<double>(), w.data<double>(), u.data<double>(), gy.data<double>()}, spans<double>(out));
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
        // For the gradients that are zero (k, w, u for T = 1, w for T = 2) the absolute error counts: relative_error adds
        // 1e-6 to the largest, and rounding leaves 2^-53·T/h < 1e-9.
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

}  // namespace
}  // namespace weft
