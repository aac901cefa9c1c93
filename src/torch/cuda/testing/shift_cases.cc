#include "torch/cuda/testing/shift_cases.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/format.h"
#include "ops/testing/random.h"

namespace weft::cuda::testing {
namespace {

ShiftCase random_case(std::int64_t b, const QShift& shift, std::int64_t c, int mixes) {
  using weft::testing::random_tensor;
  const Shape shape{b, std::int64_t{shift.height} * shift.width, c};
  ShiftCase result{.shift = shift, .x = random_tensor(shape, 1), .mix = {}, .gy = {}};
  for (std::uint64_t m = 0; m < static_cast<std::uint64_t>(mixes); ++m) {
    result.mix.push_back(random_tensor({c}, 10 + m, 0.3F, 0.5F));
    result.gy.push_back(random_tensor(shape, 20 + m));
  }
  return result;
}

Tensor shifted(const QShift& shift, const Tensor& x) {
  std::array<Tensor, 1> y = {Tensor(DType::kF64, x.shape())};
  reference(shift, {&x, 1}, y);
  return y[0];
}

Tensor zeros(const Shape& shape) {
  Tensor x(DType::kF64, shape);
  std::ranges::fill(x.mutable_data<double>(), 0);
  return x;
}

// Calls f(element, channel) for all of a tensor.
template <class F>
void for_each_element(const Tensor& x, F f) {
  const auto channels = static_cast<std::size_t>(x.shape()[2]);
  for (std::size_t i = 0; i < static_cast<std::size_t>(x.elements()); ++i) f(i, i % channels);
}

}  // namespace

std::vector<ShiftCase> shift_cases() {
  std::vector<ShiftCase> cases;
  for (const int mixes : {0, 1, 2, 3}) {
    cases.push_back(random_case(2, {.height = 5, .width = 7}, 40, mixes));
    cases.push_back(random_case(1, {.height = 14, .width = 14}, 192, mixes));
    cases.push_back(random_case(3, {.height = 1, .width = 9, .pixels = 2}, 5, mixes));
    cases.push_back(random_case(3, {.height = 9, .width = 1, .pixels = 2, .gamma = 0.2}, 33, mixes));
    cases.push_back(random_case(2, {.height = 4, .width = 3, .pixels = 9}, 16, mixes));
    cases.push_back(random_case(2, {.height = 4, .width = 3, .pixels = 2147483647}, 16, mixes));
    cases.push_back(random_case(1, {.height = 20, .width = 11, .pixels = 0}, 31, mixes));
    cases.push_back(random_case(70, {.height = 1, .width = 1}, 1, mixes));
  }
  return cases;
}

ShiftShape shape_of(const ShiftCase& c) {
  ShiftShape shape;
  shape.batch = c.x.shape()[0];
  shape.height = c.shift.height;
  shape.width = c.shift.width;
  shape.channels = c.x.shape()[2];
  shape.pixels = c.shift.pixels;
  std::ranges::copy(c.shift.cuts(shape.channels), shape.cuts);
  return shape;
}

void expect_right(const ShiftCase& c, Element type, const RunShift& run) {
  SCOPED_TRACE(fmt::format("{} of {} by {} in {}, {} mixes, {}", c.x.shape(), c.shift.height, c.shift.pixels,
                           c.shift.gamma, c.mix.size(), name_of(type)));
  const Tensor x = rounded(c.x, type), s = shifted(c.shift, x);
  const ShiftResults got = run(type, c);
  // Two products, or two for each mix, and their sum.
  const double computing = (type == Element::kF64 ? 0x1p-53 : 0x1p-24) * 8, storing = storing_error(type);
  if (c.mix.empty()) {
    EXPECT_EQ(difference(got.y[0], s), 0);
    return;
  }
  Tensor gx = zeros(x.shape());
  for (std::size_t m = 0; m < c.mix.size(); ++m) {
    const Tensor mix = c.mix[m].to(DType::kF64), gy = rounded(c.gy[m], type);
    Tensor y = zeros(x.shape()), gmix = zeros(mix.shape()), back = zeros(x.shape());
    double largest_sum = 0;
    for_each_element(x, [&](std::size_t i, std::size_t channel) {
      const double a = mix.data<double>()[channel], g = gy.data<double>()[i];
      const double of_x = x.data<double>()[i], of_s = s.data<double>()[i];
      y.mutable_data<double>()[i] = of_x * a + of_s * (1 - a);
      gmix.mutable_data<double>()[channel] += g * (of_x - of_s);
      largest_sum += std::abs(g * (of_x - of_s));
      gx.mutable_data<double>()[i] += g * a;
      back.mutable_data<double>()[i] = g * (1 - a);
    });
    const double largest = largest_of(x) * (2 * largest_of(mix) + 1);
    EXPECT_LE(difference(got.y[m], y), computing * largest + storing * largest_of(y)) << "y" << m;
    EXPECT_LE(difference(got.gmix[m], gmix), computing * largest_sum) << "gmix" << m;
    // The transpose of a shift by p is the shift by −p.
    QShift other_way = c.shift;
    other_way.pixels = -other_way.pixels;
    const Tensor from_shifted = shifted(other_way, back);
    for_each_element(
        x, [&](std::size_t i, std::size_t) { gx.mutable_data<double>()[i] += from_shifted.data<double>()[i]; });
  }
  double largest = 0;
  for (std::size_t m = 0; m < c.mix.size(); ++m) {
    largest += largest_of(rounded(c.gy[m], type)) * (2 * largest_of(c.mix[m].to(DType::kF64)) + 1);
  }
  EXPECT_LE(difference(got.gx, gx), computing * largest + storing * largest_of(gx)) << "gx";
}

}  // namespace weft::cuda::testing
