#include "ops/conv2d/conv2d.h"

#include <gtest/gtest.h>

#include "kernel/testing/product_types.h"
#include "ops/kernels.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// Sums of K products in f32: the error grows like √K half-ulps of partial sums; 64 half-ulps cover K ≤ 4096.
constexpr double kTolerance = 64 * 0x1p-24;

void check(const Shape& x, const Shape& weight, const Conv2d& op, bool bias = true) {
  std::vector<Tensor> inputs = {random_tensor(x, 1), random_tensor(weight, 2)};
  if (bias) inputs.push_back(random_tensor({weight[0]}, 3));
  check_kernel({.name = fmt::format("{} by {}{}", x, weight, bias ? " + bias" : ""),
                .operation = op,
                .inputs = inputs,
                .tolerance = kTolerance,
                .constant = {false, true, true}});
}

TEST(Conv2d, MatchesTheReference) {
  check({2, 9, 7, 5}, {6, 5, 3, 3}, {.stride = 1, .padding = 1});
  check({2, 9, 8, 5}, {6, 5, 3, 3}, {.stride = 2, .padding = 1}, false);
  check({1, 56, 56, 24}, {48, 24, 3, 3}, {.stride = 2, .padding = 1});
  check({1, 5, 6, 3}, {4, 3, 1, 1}, {.stride = 1, .padding = 0});
  check({1, 5, 6, 3}, {4, 3, 1, 1}, {.stride = 3, .padding = 2});
  check({2, 11, 10, 3}, {7, 3, 4, 2}, {.stride = 3, .padding = 0});
  check({1, 1, 1, 1}, {1, 1, 1, 1}, {});
}

// Kernels that cover more padding than grid, and rows of nothing but padding.
TEST(Conv2d, ReachesBeyondTheGrid) {
  check({1, 2, 3, 4}, {3, 4, 7, 7}, {.stride = 1, .padding = 3});
  check({1, 1, 1, 4}, {3, 4, 3, 3}, {.stride = 1, .padding = 1});
  check({2, 3, 2, 2}, {2, 2, 2, 2}, {.stride = 1, .padding = 3});
}

TEST(Conv2d, TakesNoPictures) { check({0, 5, 6, 3}, {4, 3, 3, 3}, {}); }

// In fewer bits x and the weights are rounded, each to within 2^-9 (bf16) or 2^-8 of the largest of its row (int8,
// both); 27 products of random signs add that up to far less than the 2^-5 of the largest sum asked for.
TEST(Conv2d, RunsInFewerBits) {
  for (const DType precision : testing::fewer_bits()) {
    SCOPED_TRACE(name_of(precision));
    const testing::OpCase c{
        .name = "",
        .operation = Conv2d{.stride = 2, .padding = 1},
        .inputs = {random_tensor({2, 9, 8, 3}, 1), random_tensor({8, 3, 3, 3}, 2), random_tensor({8}, 3)},
        .tolerance = 0x1p-5};
    const Tensor want = testing::run_reference(c)[0];
    std::vector<TensorType> in;
    for (const Tensor& input : c.inputs) in.push_back(input.type());
    const std::vector<TensorType> out = c.operation.infer(in);
    const std::vector<const Tensor*> constants = {nullptr, &c.inputs[1], &c.inputs[2]};
    PackCache packs;
    const auto kernel = make_lone_kernel(
        c.operation, {.in = in, .out = out, .constants = constants, .packs = &packs, .precision = precision});
    Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel->scratch_bytes())});
    Tensor y(out[0]);
    const std::vector<const std::byte*> from = {c.inputs[0].raw(), c.inputs[1].raw(), c.inputs[2].raw()};
    std::byte* const to = y.mutable_raw();
    kernel->run({.in = from, .out = {&to, 1}, .scratch = scratch.mutable_raw(), .workers = Workers(1)});
    const double error = testing::relative_error(y, want);
    EXPECT_LE(error, c.tolerance);
    EXPECT_GT(error, kTolerance) << "was not used";
  }
}

TEST(Conv2d, CountsTheWork) {
  const std::vector<TensorType> in = {{DType::kF32, {2, 9, 8, 5}}, {DType::kF32, {6, 5, 3, 3}}};
  const Conv2d op{.stride = 2, .padding = 1};
  EXPECT_EQ(infer(op, in)[0].shape, (Shape{2, 5, 4, 6}));
  EXPECT_EQ(macs(op, in), 2 * 5 * 4 * 6 * 5 * 9);
}

TEST(Conv2d, LayersDeclareTheirParameters) {
  Graph graph("toy");
  const Value x = graph.input("x", {DType::kF32, {1, 8, 8, 4}});
  EXPECT_EQ(conv2d(x, Scope(graph)["a"], {.channels = 6, .stride = 2, .padding = 1}).shape(), (Shape{1, 4, 4, 6}));
  EXPECT_EQ(conv2d(x, Scope(graph)["b"], {.channels = 6, .kernel_size = 1, .bias = false}).shape(),
            (Shape{1, 8, 8, 6}));
  ASSERT_EQ(graph.parameters().size(), 3U);
  EXPECT_EQ(graph.value(graph.parameters()[0]).type.shape, (Shape{6, 4, 3, 3}));
  EXPECT_EQ(graph.value(graph.parameters()[1]).name, "a.bias");
  EXPECT_EQ(graph.value(graph.parameters()[2]).name, "b.weight");
  EXPECT_EQ(graph.value(graph.parameters()[2]).type.shape, (Shape{6, 4, 1, 1}));
  EXPECT_EQ(graph.nodes().back().operation.name(), "linear");
}

TEST(Conv2d, RefusesWhatDoesNotFit) {
  const auto error_of = testing::infer_error<Conv2d>;
  const Shape weight = {8, 3, 5, 5};
  EXPECT_EQ(error_of({}, {{1, 9, 9, 3}, weight, {8}}), "no error");
  EXPECT_EQ(error_of({}, {{1, 9, 9, 3}}), "[conv2d] takes x, weight and an optional bias, got 1 inputs");
  EXPECT_EQ(error_of({}, {{9, 9, 3}, weight}), "[conv2d] x must be [B,H,W,Cin], Cin ≥ 1, got [9,9,3]");
  EXPECT_EQ(error_of({}, {{1, 9, 9, 4}, weight}),
            "[conv2d] weight must be [Cout,Cin,kh,kw]=[Cout,4,kh,kw] with elements, got [8,3,5,5]");
  EXPECT_EQ(error_of({}, {{1, 9, 9, 3}, weight, {3}}), "[conv2d] bias must be [Cout]=[8], got [3]");
  EXPECT_EQ(error_of({.padding = 1}, {{1, 2, 9, 3}, weight}),
            "[conv2d] x [1,2,9,3] with a padding of 1 is smaller than the kernel 5 x 5");
  EXPECT_EQ(error_of({.stride = 0}, {{1, 9, 9, 3}, weight}),
            "[conv2d] stride must be at least 1 and padding at least 0, got 0 and 0");
  EXPECT_EQ(error_of({.padding = -1}, {{1, 9, 9, 3}, weight}),
            "[conv2d] stride must be at least 1 and padding at least 0, got 1 and -1");
}

}  // namespace
}  // namespace weft
