#include "ops/layout/layout.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ops/kernels.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

void check(Operation operation, const Shape& shape) {
  check_kernel({.name = shape.str(),
                .operation = std::move(operation),
                .inputs = {random_tensor(shape, 1)},
                .tolerance = 0});  // nothing is computed
}

TEST(Reshape, KeepsTheElements) {
  check(Reshape{.shape = {6, 4}}, {2, 3, 4});
  check(Reshape{.shape = {40'000}}, {200, 200});
  check(Reshape{.shape = {1, 1}}, {});
  check(Reshape{.shape = {0, 7}}, {3, 0});
  EXPECT_TRUE(Operation(Reshape{}).is_view());
  EXPECT_EQ(Operation(Reshape{.shape = {2, 3}}).attributes(), "shape=[2,3]");
}

TEST(Permute, TransposesTokensAndChannels) {
  for (const std::int64_t n : {0, 1, 3, 4, 5, 7, 8, 9, 63, 64, 65, 130}) {
    check(Permute{.order = {0, 2, 1}}, {2, n, 3});
    check(Permute{.order = {0, 2, 1}}, {1, 5, n});
    check(Permute{.order = {1, 0}}, {n, 67});
  }
  check(Permute{.order = {0, 2, 1}}, {2, 196, 192});
}

TEST(Permute, TakesAnyOrder) {
  std::vector<int> order = {0, 1, 2, 3};
  do {
    check(Permute{.order = order}, {3, 4, 5, 6});
    check(Permute{.order = order}, {2, 1, 66, 5});
  } while (std::ranges::next_permutation(order).found);
  check(Permute{.order = {0, 1}}, {300, 200});
  check(Permute{.order = {1, 0, 2}}, {70, 80, 9});
  check(Permute{.order = {0, 3, 1, 2}}, {2, 14, 14, 96});
  check(Permute{.order = {}}, {});
  check(Permute{.order = {0}}, {5});
  check(Permute{.order = {4, 2, 0, 3, 1}}, {2, 3, 4, 5, 6});
}

TEST(Permute, MovesAxesAsNumPyDoes) {
  Tensor x(DType::kF64, {2, 3});
  std::ranges::copy(std::vector<double>{1, 2, 3, 4, 5, 6}, x.mutable_data<double>().begin());
  Tensor y(DType::kF64, {3, 2});
  reference(Permute{.order = {1, 0}}, std::span(&x, 1), std::span(&y, 1));
  EXPECT_TRUE(std::ranges::equal(y.data<double>(), std::vector<double>{1, 4, 2, 5, 3, 6}));
}

TEST(Slice, TakesARangeOfAnyAxis) {
  check(Slice{.axis = 1, .begin = 0, .end = 1}, {2, 197, 5});
  check(Slice{.axis = 1, .begin = 1, .end = 197}, {2, 197, 192});
  for (const std::int64_t begin : {0, 192, 384}) {
    check(Slice{.axis = -1, .begin = begin, .end = begin + 192}, {2, 50, 576});
  }
  check(Slice{.axis = 0, .begin = 1, .end = 3}, {3, 100, 200});
  check(Slice{.axis = 2, .begin = 3, .end = 4}, {3, 4, 5, 6});
  check(Slice{.axis = 0, .begin = 0, .end = 7}, {7});
  check(Slice{.axis = 1, .begin = 2, .end = 2}, {3, 4, 5});
  check(Slice{.axis = 1, .begin = 0, .end = 3}, {0, 4, 5});
  check(Slice{.axis = 1, .begin = 0, .end = 0}, {2, 0, 5});
}

TEST(Pad, AddsZerosAtTheEndOfAnyAxis) {
  check(Pad{.axis = 1, .count = 2}, {2, 5, 7, 3});
  check(Pad{.axis = 2, .count = 1}, {2, 5, 7, 192});
  check(Pad{.axis = -2, .count = 6}, {3, 2, 8, 17});
  check(Pad{.axis = 0, .count = 1}, {3, 4, 5});
  check(Pad{.axis = -1, .count = 3}, {2, 4, 5});
  check(Pad{.axis = 0, .count = 2}, {7});
  check(Pad{.axis = 1, .count = 0}, {2, 3, 4});
  check(Pad{.axis = 1, .count = 3}, {0, 4, 5});
}

TEST(Pad, OfNothingIsZeros) {
  for (const Shape& shape : {Shape{2, 0, 3}, Shape{2, 4, 0}}) {
    const Pad op{.axis = shape[1] == 0 ? 1 : 2, .count = 2};
    const TensorType in{DType::kF32, shape};
    const std::vector<TensorType> out = infer(op, std::span(&in, 1));
    const Tensor* const no_constant = nullptr;
    const auto kernel = make_lone_kernel(op, {.in = std::span(&in, 1), .out = out, .constants = {&no_constant, 1}});
    const Tensor x(in);
    Tensor y = Tensor::of(std::vector<float>(static_cast<std::size_t>(out[0].shape.elements()), 5), out[0].shape);
    const std::byte* const from = x.raw();
    std::byte* const to = y.mutable_raw();
    kernel->run({.in = {&from, 1}, .out = {&to, 1}, .workers = Workers(1)});
    for (const float element : y.data<float>()) EXPECT_EQ(element, 0);
  }
}

void check_concat(int axis, const std::vector<Shape>& shapes) {
  testing::OpCase c{.name = fmt::format("{}", fmt::join(shapes, " ")),
                    .operation = Concat{.axis = axis},
                    .inputs = {},
                    .tolerance = 0};  // nothing is computed
  for (const Shape& shape : shapes) c.inputs.push_back(random_tensor(shape, c.inputs.size() + 1));
  check_kernel(c);
}

TEST(Concat, JoinsAlongAnyAxisButTheBatch) {
  check_concat(1, {{2, 3, 4}, {2, 5, 4}});
  check_concat(2, {{2, 3, 4}, {2, 3, 1}, {2, 3, 7}});
  check_concat(-1, {{2, 3, 4}, {2, 3, 1}});
  check_concat(1, {{3, 5}, {3, 6}});
  check_concat(1, {{2, 0, 4}, {2, 5, 4}, {2, 0, 4}});
  check_concat(1, {{0, 3, 4}, {0, 5, 4}});
}

TEST(Concat, RepeatsABatchOfOne) {
  check_concat(1, {{1, 1, 192}, {1, 1, 192}, {3, 196, 192}});
  check_concat(1, {{3, 2, 5}, {1, 4, 5}});
  check_concat(2, {{1, 3, 2}, {4, 3, 5}});
  check_concat(1, {{1, 2, 5}, {1, 4, 5}});
}

TEST(Layout, RefusesRangesAndPartsThatDoNotFit) {
  const auto slice_error = [](const Slice& op, Shape x) { return testing::infer_error(op, {std::move(x)}); };
  EXPECT_EQ(slice_error({.axis = 3, .end = 1}, {2, 3, 4}), "[slice] x [2,3,4] has no axis 3");
  EXPECT_EQ(slice_error({.axis = -4, .end = 1}, {2, 3, 4}), "[slice] x [2,3,4] has no axis -4");
  EXPECT_EQ(slice_error({.axis = 1, .begin = 1, .end = 4}, {2, 3, 4}),
            "[slice] 1 … 4 is not within axis 1 of x [2,3,4]");
  EXPECT_EQ(slice_error({.axis = 1, .begin = 2, .end = 1}, {2, 3, 4}),
            "[slice] 2 … 1 is not within axis 1 of x [2,3,4]");
  EXPECT_EQ(slice_error({.axis = 1, .begin = -1, .end = 1}, {2, 3, 4}),
            "[slice] -1 … 1 is not within axis 1 of x [2,3,4]");
  EXPECT_EQ(testing::infer_error(Pad{.axis = 3, .count = 1}, {{2, 3, 4}}), "[pad] x [2,3,4] has no axis 3");
  EXPECT_EQ(testing::infer_error(Pad{.axis = 1, .count = -1}, {{2, 3, 4}}),
            "[pad] count must be at least 0 and leave an extent of 63 bits, got -1");
  const auto concat_error = [](int axis, const std::vector<Shape>& parts) {
    return testing::infer_error(Concat{.axis = axis}, parts);
  };
  EXPECT_EQ(concat_error(1, {{2, 3}}), "[concat] takes two or more inputs, got 1");
  EXPECT_EQ(concat_error(0, {{2, 3}, {2, 3}}), "[concat] [2,3] has no axis 0 after the batch axis");
  EXPECT_EQ(concat_error(2, {{2, 3}, {2, 3}}), "[concat] [2,3] has no axis 2 after the batch axis");
  EXPECT_EQ(concat_error(1, {{2, 3, 4}, {2, 3, 5}}),
            "[concat] inputs must differ in axis 1 only, or have a batch of 1, got f32[2,3,4] and f32[2,3,5]");
  EXPECT_EQ(concat_error(1, {{2, 3}, {3, 3}}),
            "[concat] inputs must differ in axis 1 only, or have a batch of 1, got f32[2,3] and f32[3,3]");
}

TEST(Layout, RefusesShapesThatDoNotFit) {
  Graph graph("toy");
  const Value x = graph.input("x", {DType::kF32, {2, 3, 4}});
  EXPECT_EQ(permute(x, {2, 0, 1}).shape(), (Shape{4, 2, 3}));
  EXPECT_EQ(reshape(x, {6, 4}).shape(), (Shape{6, 4}));
  const auto error_of = [](auto&& build) -> std::string {
    try {
      build();
    } catch (const ShapeError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of([&] { reshape(x, {5, 5}); }), "[reshape] [5,5] has 25 elements, x [2,3,4] has 24 (at toy)");
  for (const auto& [order, text] : std::vector<std::pair<std::vector<int>, std::string>>{
           {{0, 1}, "[0, 1]"}, {{0, 1, 1}, "[0, 1, 1]"}, {{0, 1, 3}, "[0, 1, 3]"}, {{0, 1, -1}, "[0, 1, -1]"}}) {
    EXPECT_EQ(error_of([&, &axes = order] { permute(x, axes); }),
              fmt::format("[permute] order {} must name each axis of x [2,3,4] once (at toy)", text));
  }
}

}  // namespace
}  // namespace weft
