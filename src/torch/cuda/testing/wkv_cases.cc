#include "torch/cuda/testing/wkv_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/format.h"
#include "ops/bi_wkv/bi_wkv_grad.h"
#include "ops/testing/random.h"

namespace weft::cuda::testing {
namespace {

using weft::testing::random_tensor;

constexpr weft::Wkv kForms[] = {weft::Wkv::kPaper, weft::Wkv::kReleasedKernel};

struct Scales {
  float k = 1, w = 1, u = 1, k_shift = 0, w_shift = 0, u_shift = 0;
};

WkvCase random_case(std::string name, weft::Wkv form, std::int64_t b, std::int64_t t, std::int64_t c, const Scales& s) {
  return {.name = std::move(name),
          .form = form,
          .k = random_tensor({b, t, c}, 1, s.k, s.k_shift),
          .v = random_tensor({b, t, c}, 2),
          .w = random_tensor({c}, 3, s.w, s.w_shift),
          .u = random_tensor({c}, 4, s.u, s.u_shift),
          .gy = random_tensor({b, t, c}, 5)};
}

// What rounding each term of gw once, by up to 2^-23, may add up to; the largest over the channels. Of numerator and
// denominator they are rounded apart. The released kernel's terms are as large.
double rounding_of_gw(const std::array<Tensor, 5>& in) {
  const auto [k, v, w, u, gy] = in;
  const std::int64_t tokens = k.shape()[1], channels = k.shape()[2];
  std::vector<double> sums(static_cast<std::size_t>(channels));
  for (std::int64_t row = 0; row < k.shape()[0] * channels; ++row) {
    const auto c = static_cast<std::size_t>(row % channels);
    const auto at = [&](const Tensor& x, std::int64_t i) {
      return x.data<double>()[static_cast<std::size_t>((row / channels * tokens + i) * channels) + c];
    };
    const double decay = w.data<double>()[c], bonus = u.data<double>()[c];
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto age = [&](std::int64_t i) { return i == t ? 0 : static_cast<double>(std::abs(t - i) - 1); };
      const auto exponent = [&](std::int64_t i) { return at(k, i) + (i == t ? bonus : -age(i) * decay); };
      double largest = exponent(t), numerator = 0, denominator = 0, sum = 0;
      for (std::int64_t i = 0; i < tokens; ++i) largest = std::max(largest, exponent(i));
      const auto weight = [&](std::int64_t i) { return std::exp(exponent(i) - largest); };
      for (std::int64_t i = 0; i < tokens; ++i) numerator += weight(i) * at(v, i), denominator += weight(i);
      const double y = numerator / denominator;
      for (std::int64_t i = 0; i < tokens; ++i) sum += age(i) * weight(i) * (std::abs(at(v, i)) + std::abs(y));
      sums[c] += sum / denominator * std::abs(at(gy, t));
    }
  }
  return sums.empty() ? 0 : 0x1p-23 * *std::ranges::max_element(sums);
}

// f32: an exponential is off by up to 2^-22, a sum over the tokens of a tile, of tiles and of chunks by some 20 to 60
// roundings of 2^-24; an exponent is a difference rounded once, at the size of the keys, 2^-24 of
// it. f64 is 2^29 times finer.
double computing_error(const std::array<Tensor, 5>& in, Element type) {
  double largest_key = 0;
  for (const double k : in[0].data<double>()) {
    if (std::isfinite(k)) largest_key = std::max(largest_key, std::abs(k));
  }
  return (type == Element::kF64 ? 0x1p-29 : 1) * (5e-6 + 4 * 0x1p-24 * largest_key);
}

}  // namespace

WkvShape shape_of(const WkvCase& c) {
  WkvShape shape;
  shape.batch = c.shape()[0];
  shape.tokens = c.shape()[1];
  shape.channels = c.shape()[2];
  shape.released_kernel = c.form == weft::Wkv::kReleasedKernel;
  return shape;
}

WkvCase model_case(weft::Wkv form, std::int64_t b, std::int64_t t, std::int64_t c) {
  const float per_token = 1 / static_cast<float>(std::max<std::int64_t>(t, 1));
  return random_case("model", form, b, t, c, {.w = 4 * per_token, .u = per_token});
}

std::vector<WkvCase> ordinary_cases() {
  std::vector<WkvCase> cases;
  for (const weft::Wkv form : kForms) {
    for (const std::int64_t t : {1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 64, 65, 129, 196, 197, 513, 1025}) {
      cases.push_back(model_case(form, 1, t, 5));
    }
    for (const std::int64_t c : {1, 31, 32, 33, 100}) cases.push_back(model_case(form, 2, 40, c));
    cases.push_back(model_case(form, 3, 270, 19));
    cases.push_back(model_case(form, 37, 70, 3));
    cases.push_back(random_case("no decay", form, 1, 300, 3, {.w = 0}));
    cases.push_back(random_case("slight decay", form, 1, 300, 3, {.w = 1e-6F}));
    cases.push_back(random_case("bonus", form, 1, 300, 5, {.w = 0.01F, .u_shift = 12}));
  }
  return cases;
}

std::vector<WkvCase> extreme_cases() {
  std::vector<WkvCase> cases;
  for (const float k : {20.0F, 300.0F, 1000.0F}) {
    for (const std::int64_t t : {12, 197, 300}) {
      const std::string name = fmt::format("k ~ {}", k);
      cases.push_back(random_case(name, weft::Wkv::kPaper, 2, t, 18, {.k = k, .w = 0.1F}));
      cases.push_back(random_case(name, weft::Wkv::kReleasedKernel, 2, t, 18, {.k = k, .w = 0.01F, .w_shift = -0.1F}));
    }
  }
  for (const std::int64_t t : {1, 2, 33, 197, 300}) {
    for (const float w : {-30.0F, -2.0F, -0.5F, 0.5F, 2.0F, 30.0F, 200.0F}) {
      const std::string name = fmt::format("w = {}", w);
      cases.push_back(random_case(name, weft::Wkv::kPaper, 1, t, 5, {.k = 3, .w = 0, .w_shift = w}));
      // For w > 0 the released kernel subtracts up to e^{w·run}·e^{k_i}; a large bonus keeps the quotient
      // well-conditioned.
      const float run = static_cast<float>(released_kernel_run(t));
      cases.push_back(random_case(name, weft::Wkv::kReleasedKernel, 1, t, 5,
                                  {.k = 3, .w = 0, .w_shift = w, .u_shift = std::max(0.0F, w) * run + 20}));
    }
    for (const float u : {-200.0F, -30.0F, 30.0F, 200.0F}) {
      for (const weft::Wkv form : kForms) {
        cases.push_back(
            random_case(fmt::format("u = {}", u), form, 1, t, 5, {.w = 0.01F, .w_shift = -0.05F, .u_shift = u}));
      }
    }
  }
  for (const weft::Wkv form : kForms) {
    // One token outweighs all others, but its weight is gone after a few steps.
    for (const std::size_t token : {0, 20}) {
      for (const std::int64_t t : {32, 300}) {
        const bool decays = form == weft::Wkv::kPaper || t <= 32;  // else ill-conditioned, see above
        WkvCase c =
            random_case("one large key", form, 1, t, 5, {.w = 0, .k_shift = -200, .w_shift = decays ? 5.F : -.1F});
        for (std::size_t i = 0; i < 5; ++i) c.k.mutable_data<float>()[token * 5 + i] = 0;
        cases.push_back(std::move(c));
      }
    }
    for (const std::int64_t t : {40, 300}) {
      WkvCase c = model_case(form, 1, t, 5);
      c.name = "masked";
      const auto k = c.k.mutable_data<float>();
      for (std::size_t i = 0; i < k.size(); ++i) {
        if (i / 5 % 3 == 0) k[i] = -std::numeric_limits<float>::infinity();
      }
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

void expect_right(const WkvCase& c, Element type, const RunWkv& run) {
  SCOPED_TRACE(fmt::format("{} {} {} {}", name_of(c.form), c.shape(), c.name, name_of(type)));
  const std::array<Tensor, 5> in = {rounded(c.k, type), rounded(c.v, type), c.w.to(DType::kF64), c.u.to(DType::kF64),
                                    rounded(c.gy, type)};
  WkvResults want{.y = Tensor(DType::kF64, c.shape()),
                  .gradients = {Tensor(DType::kF64, c.shape()), Tensor(DType::kF64, c.shape()),
                                Tensor(DType::kF64, c.w.shape()), Tensor(DType::kF64, c.w.shape())}};
  reference(BiWkv{.wkv = c.form}, std::span(in).first<4>(), {&want.y, 1});
  auto& g = want.gradients;
  bi_wkv_backward_reference(
      c.form, c.shape(),
      {in[0].data<double>(), in[1].data<double>(), in[2].data<double>(), in[3].data<double>(), in[4].data<double>()},
      {g[0].mutable_data<double>(), g[1].mutable_data<double>(), g[2].mutable_data<double>(),
       g[3].mutable_data<double>()});

  const WkvResults got = run(type, c);
  const double computing = computing_error(in, type), storing = storing_error(type);
  const auto expect = [&](std::string_view name, const Tensor& a, const Tensor& b, double more) {
    EXPECT_LE(difference(a, b), computing * (largest_of(b) + 1e-6) + more) << name;
  };
  expect("y", got.y, want.y, storing * largest_of(want.y));
  // gk is a difference of two parts, each as large as gv·v; so are gu and gw's terms in the reference.
  const double finer = type == Element::kF64 ? 0x1p-29 : 1;
  const double parts = 2 * largest_of(in[1]);
  const double tokens = static_cast<double>(c.shape()[1]);
  const double reference_error = 0x1p-53 * parts * largest_of(in[4]) * static_cast<double>(c.shape()[0]) * tokens;
  expect("gk", got.gradients[0], g[0], computing * parts * largest_of(g[1]) + storing * largest_of(g[0]));
  expect("gv", got.gradients[1], g[1], storing * largest_of(g[1]));
  expect("gw", got.gradients[2], g[2], finer * rounding_of_gw(in) + reference_error * tokens);
  expect("gu", got.gradients[3], g[3], reference_error);
}

}  // namespace weft::cuda::testing
