// Attention free attention in libtorch beyond what random graphs and reference cases hold: keys and biases of any size.
#include <gtest/gtest.h>

#include <cmath>

#include "graph/evaluate.h"
#include "ops/ops.h"
#include "ops/testing/op_test.h"
#include "torch/engine.h"

namespace weft {
namespace {

using testing::random_tensor;
using testing::relative_error;

// k, v and maybe a bias, as inputs.
struct Layer {
  Graph graph{"aft"};
  std::vector<Tensor> in;
  Tensor cotangent = random_tensor({2, 12, 6}, 9);

  Layer(const Aft& attributes, const std::optional<Shape>& bias, float size) {
    in = {random_tensor({2, 12, 3}, 1, size), random_tensor({2, 12, 6}, 2)};
    if (bias) in.push_back(random_tensor(*bias, 3));
    std::vector<Value> values;
    for (const Tensor& tensor : in) values.push_back(graph.input(fmt::format("x{}", values.size()), tensor.type()));
    graph.output("y", aft(values[0], values[1], bias ? std::optional(values[2]) : std::nullopt, attributes));
  }
};

const std::vector<std::pair<Aft, std::optional<Shape>>> kForms = {
    {{}, std::nullopt},
    {{.causal = true}, std::nullopt},
    {{}, Shape{13, 13}},
    {{.causal = true}, Shape{12, 12}},
    {{.window = 3}, Shape{12, 12}},
    {{.causal = true, .window = 3}, Shape{12, 12}},
    {{.causal = true}, Shape{3, 1, 4}},
    {{.height = 3, .width = 4}, Shape{1, 3, 3}},
};

TEST(TorchAft, KeysOfAnySizeHaveFiniteGradients) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    const auto engine = load_torch_engine({.dtype = dtype});
    for (const auto& [attributes, bias] : kForms) {
      for (const float size : {1.0F, 1e4F, 1e30F}) {
        const Layer layer(attributes, bias, size);
        SCOPED_TRACE(fmt::format("{} {} {}", name_of(dtype), Operation(attributes).attributes(), size));
        const TorchGradients got = engine->differentiate(layer.graph, {}, layer.in, {&layer.cotangent, 1});
        // A key of 1e4 with a bias is off by 2^-11 in f32, and with it what it weighs.
        const double tolerance = dtype == DType::kF64 ? 1e-12 : size == 1 ? 1e-5 : 0x1p-10;
        EXPECT_LE(relative_error(got.outputs[0], evaluate_reference(layer.graph, {}, layer.in)[0]), tolerance);
        for (const Tensor& gradient : got.inputs) {
          const Tensor wide = gradient.to(DType::kF64);
          for (const double value : wide.data<double>()) EXPECT_TRUE(std::isfinite(value));
        }
      }
    }
  }
}

// Keys that span some 200: too far apart for products in f32, and near enough in f64. All are multiples of 1/4, so that
// sums of keys and biases are exact.
TEST(TorchAft, BothWaysHaveTheSameGradients) {
  const auto f32 = load_torch_engine({.dtype = DType::kF32});
  const auto f64 = load_torch_engine({.dtype = DType::kF64});
  for (const auto& [attributes, bias] : kForms) {
    Layer layer(attributes, bias, 40);
    for (Tensor& tensor : layer.in) {
      for (float& x : tensor.mutable_data<float>()) x = std::round(x * 4) / 4;
    }
    SCOPED_TRACE(Operation(attributes).attributes());
    const TorchGradients got = f32->differentiate(layer.graph, {}, layer.in, {&layer.cotangent, 1});
    const TorchGradients want = f64->differentiate(layer.graph, {}, layer.in, {&layer.cotangent, 1});
    for (std::size_t i = 0; i < want.inputs.size(); ++i) {
      // Sums of 48 terms at most (results, channels of a key and batch entries), each cotangent · weight · (v − y),
      // some 12, wrong by four roundings.
      const auto gradient = got.inputs[i].to(DType::kF64);
      for (std::size_t j = 0; j < gradient.data<double>().size(); ++j) {
        EXPECT_NEAR(gradient.data<double>()[j], want.inputs[i].data<double>()[j], 48 * 12 * 4 * 0x1p-24) << i;
      }
    }
  }
}

}  // namespace
}  // namespace weft
