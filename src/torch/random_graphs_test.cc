// The two executors and the references on the same random graphs: implementations that share no code. (In f32 on the
// CPU libtorch is lent weft's scan for bi_wkv; in f64 it has its own.)
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "cpu/testing/run.h"
#include "graph/evaluate.h"
#include "ops/testing/op_test.h"
#include "ops/testing/rounding.h"
#include "torch/engine.h"

namespace weft {
namespace {

using testing::evaluate_rounding;
using testing::kF32Rounding;
using testing::kF64Rounding;
using testing::random_graph;
using testing::random_tensor;
using testing::RandomGraph;

constexpr std::uint64_t kGraphs = 400;

std::string describe(std::uint64_t seed, const RandomGraph& g) {
  return fmt::format("graph of seed {}:\n{}", seed, g.graph->str());
}

TEST(TorchRandomGraphs, BothEnginesComputeWhatTheReferencesDo) {
  const auto f32 = load_torch_engine({.dtype = DType::kF32});
  const auto fused = load_torch_engine({.dtype = DType::kF32, .fused = true});
  const auto f64 = load_torch_engine({.dtype = DType::kF64});
  for (std::uint64_t seed = 0; seed < kGraphs; ++seed) {
    const RandomGraph g = random_graph(seed);
    SCOPED_TRACE(describe(seed, g));
    const std::vector<Tensor> want = evaluate_reference(*g.graph, g.weights, g.inputs);
    const std::vector<double> tolerance = testing::tolerances(g, want);
    const std::vector<Tensor> cpu = testing::run_plan(*g.graph, g.weights, g.inputs, 2);
    const std::vector<Tensor> torch = f32->run(*g.graph, g.weights, g.inputs);
    const std::vector<Tensor> tiled = fused->run(*g.graph, g.weights, g.inputs);
    const std::vector<Tensor> wide = f64->run(*g.graph, g.weights, g.inputs);
    ASSERT_EQ(cpu.size(), want.size());
    ASSERT_EQ(torch.size(), want.size());
    ASSERT_EQ(wide.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      SCOPED_TRACE(fmt::format("output {}", g.graph->outputs()[i].name));
      ASSERT_EQ(torch[i].type(), (TensorType{DType::kF32, want[i].shape()}));
      ASSERT_EQ(wide[i].type(), (TensorType{DType::kF64, want[i].shape()}));
      EXPECT_LE(testing::relative_error(torch[i], want[i]), tolerance[i]) << "torch f32";
      EXPECT_LE(testing::relative_error(tiled[i], want[i]), tolerance[i]) << "torch fused";
      EXPECT_LE(testing::relative_error(torch[i], cpu[i]), 2 * tolerance[i]) << "torch f32 and cpu, each its own error";
      EXPECT_LE(testing::relative_error(wide[i], want[i]), tolerance[i] * (kF64Rounding / kF32Rounding)) << "torch f64";
    }
  }
}

// Σ over outputs of sum(output · cotangent).
double loss_of(const std::vector<Tensor>& outputs, const std::vector<Tensor>& cotangents) {
  double loss = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const auto y = outputs[i].data<double>();
    loss = std::inner_product(y.begin(), y.end(), cotangents[i].data<double>().begin(), loss);
  }
  return loss;
}

// The point at `distance` along a direction: one tensor of it for each input and each parameter.
RandomGraph moved(std::uint64_t seed, const std::map<std::string, Tensor>& direction, double distance) {
  RandomGraph g = random_graph(seed);
  const auto move = [&](Tensor& tensor, const Tensor& step) {
    tensor = tensor.to(DType::kF64).clone();
    for (std::size_t i = 0; i < step.data<double>().size(); ++i) {
      tensor.mutable_data<double>()[i] += distance * step.data<double>()[i];
    }
  };
  for (std::size_t i = 0; i < g.inputs.size(); ++i) move(g.inputs[i], direction.at(fmt::format("x{}", i)));
  for (auto& [name, weight] : g.weights) move(weight, direction.at(name));
  return g;
}

// The derivative along a random direction of all inputs and parameters against central differences of the references:
// (4·D(h/2) − D(h))/3, whose error is some h⁴; |D(h) − D(h/2)|, which is of order h², bounds it amply. To that comes
// what rounding in f64 moves the losses by, over h.
// Some operators have kinks, and a difference across one is no derivative: a smaller step then stays on one side.
TEST(TorchRandomGraphs, GradientsAreThoseOfTheReferences) {
  const auto engine = load_torch_engine({.dtype = DType::kF64});
  for (std::uint64_t seed = 0; seed < kGraphs; ++seed) {
    const RandomGraph g = random_graph(seed);
    SCOPED_TRACE(describe(seed, g));
    std::vector<Tensor> cotangents;
    for (const Graph::Output& output : g.graph->outputs()) {
      const Shape& shape = g.graph->value(output.value).type.shape;
      cotangents.push_back(random_tensor(shape, seed + cotangents.size()).to(DType::kF64));
    }
    const TorchGradients gradients = engine->differentiate(*g.graph, g.weights, g.inputs, cotangents);
    std::map<std::string, Tensor> direction;
    double got = 0;
    const auto go_along = [&](const std::string& name, const Tensor& gradient) {
      const Tensor step = random_tensor(gradient.shape(), seed + direction.size()).to(DType::kF64);
      const auto values = gradient.data<double>();
      got = std::inner_product(values.begin(), values.end(), step.data<double>().begin(), got);
      direction.emplace(name, step);
    };
    for (std::size_t i = 0; i < g.inputs.size(); ++i) go_along(fmt::format("x{}", i), gradients.inputs[i]);
    for (const auto& [name, gradient] : gradients.parameters) go_along(name, gradient);

    const auto loss_at = [&](double distance) {
      const RandomGraph there = moved(seed, direction, distance);
      return loss_of(evaluate_reference(*there.graph, there.weights, there.inputs), cotangents);
    };
    const auto difference = [&](double h) { return (loss_at(h) - loss_at(-h)) / (2 * h); };
    const double loss = loss_at(0);
    double rounding = kF64Rounding * std::abs(loss);
    for (const std::uint64_t noise : {1, 2, 3}) {
      const double there = loss_of(evaluate_rounding(g, kF32Rounding, noise), cotangents);
      rounding = std::max(rounding, testing::kRoundingMargin * std::abs(there - loss) * (kF64Rounding / kF32Rounding));
    }
    std::string misfits;
    bool fits = false;
    for (const double step : {1e-4, 1e-5, 1e-6}) {
      const double coarse = difference(step);
      const double fine = difference(step / 2);
      const double want = (4 * fine - coarse) / 3;
      const double tolerance = std::abs(fine - coarse) + 3 * rounding / step;
      fits = std::abs(got - want) <= tolerance;
      const bool smooth = std::abs(fine - coarse) <= 3 * rounding / step;
      if (fits || smooth) break;
      misfits += fmt::format("; {} ± {} with steps of {}", want, tolerance, step);
    }
    EXPECT_TRUE(fits) << got << misfits;
  }
}

}  // namespace
}  // namespace weft
