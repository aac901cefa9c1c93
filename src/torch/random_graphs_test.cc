// The two executors and the references on the same random graphs: implementations that share no code.
//
// Tolerances are each graph's own, measured on the references. Rounding to a relative error of ε in every operation is
// imitated: what goes into an operation is changed by up to n·ε of its largest element, where n is how many roundings
// one element of the result may see there (products in a sum, and a few more), and the result by up to ε of its own.
// What the outputs then move by, at most of three times, is what arithmetic of that precision may cost this graph; 4 of
// these are allowed, because three samples are few and kernels may round in other places.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "cpu/plan.h"
#include "graph/evaluate.h"
#include "ops/ops.h"
#include "ops/testing/op_test.h"
#include "ops/testing/random_graph.h"
#include "torch/engine.h"

namespace weft {
namespace {

using testing::random_graph;
using testing::random_tensor;
using testing::RandomGraph;

constexpr std::uint64_t kGraphs = 300;
constexpr double kF32 = 0x1p-24;
constexpr double kF64 = 0x1p-53;
constexpr double kMargin = 4;

// Roundings on the way to one element of the result.
double roundings(const Graph& graph, const Graph::Node& node) {
  const auto shape = [&](std::size_t i) { return graph.value(node.inputs[i]).type.shape; };
  const auto count = [](std::int64_t n) { return static_cast<double>(n) + 4; };
  const Operation& operation = node.operation;
  if (operation.as<Linear>() || operation.as<PatchEmbed>()) return count(shape(1).elements() / shape(1)[0]);
  if (const auto* attention = operation.as<Attention>()) return count(shape(0)[2] / attention->heads + shape(1)[1]);
  if (operation.as<BiWkv>()) return count(shape(0)[1]);
  if (operation.as<LayerNorm>()) return count(2 * shape(0)[-1]);
  if (const auto* mean = operation.as<Mean>()) return count(shape(0)[mean->axis]);
  // 16 weights, each from a coordinate that is rounded at the size of the grid.
  if (operation.as<Interpolate>()) return count(16 + 2 * std::max(shape(0)[1], shape(0)[2]));
  return count(0);
}

// The references, with errors of relative size `epsilon` strewn in.
std::vector<Tensor> evaluate_rounding(const RandomGraph& g, double epsilon, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> either(-1, 1);
  const auto changed = [&](const Tensor& tensor, double relative) {
    Tensor result = tensor.clone();
    double largest = 0;
    for (const double value : tensor.data<double>()) largest = std::max(largest, std::abs(value));
    for (double& value : result.mutable_data<double>()) value += relative * largest * either(random);
    return result;
  };
  const Graph& graph = *g.graph;
  std::vector<Tensor> values(graph.values().size());
  std::size_t input = 0;
  for (std::size_t id = 0; id < values.size(); ++id) {
    const Graph::ValueInfo& info = graph.values()[id];
    if (info.kind == Graph::Kind::kInput) values[id] = g.inputs[input++].to(DType::kF64);
    if (info.kind == Graph::Kind::kParameter) values[id] = g.weights.at(info.name).to(DType::kF64);
    if (info.kind == Graph::Kind::kConstant) values[id] = info.constant.to(DType::kF64);
  }
  for (const Graph::Node& node : graph.nodes()) {
    std::vector<Tensor> in, out;
    const double n = roundings(graph, node);
    for (const int id : node.inputs) in.push_back(changed(values[static_cast<std::size_t>(id)], n * epsilon));
    for (const int id : node.outputs) out.emplace_back(DType::kF64, graph.value(id).type.shape);
    node.operation.reference(in, out);
    for (std::size_t i = 0; i < out.size(); ++i) {
      values[static_cast<std::size_t>(node.outputs[i])] = changed(out[i], epsilon);
    }
  }
  std::vector<Tensor> outputs;
  for (const Graph::Output& output : graph.outputs()) outputs.push_back(values[static_cast<std::size_t>(output.value)]);
  return outputs;
}

// For each output the relative error that f32 may make.
std::vector<double> tolerances(const RandomGraph& g, const std::vector<Tensor>& want) {
  std::vector<double> result(want.size(), kF32);  // the one rounding of a result that is merely stored
  for (const std::uint64_t seed : {1, 2, 3}) {
    const std::vector<Tensor> moved = evaluate_rounding(g, kF32, seed);
    for (std::size_t i = 0; i < want.size(); ++i) {
      result[i] = std::max(result[i], kMargin * testing::relative_error(moved[i], want[i]));
    }
  }
  return result;
}

std::vector<Tensor> run_cpu(const RandomGraph& g) {
  const Workers workers(2);
  const Plan plan(*g.graph, g.weights, workers, std::make_shared<PackCache>());
  Plan::Context context(plan);
  std::vector<const std::byte*> in;
  std::vector<Tensor> outputs;
  std::vector<std::byte*> out;
  for (const Tensor& input : g.inputs) in.push_back(input.raw());
  for (const Plan::Port& port : plan.outputs()) out.push_back(outputs.emplace_back(port.type).mutable_raw());
  plan.run(in, out, context, workers);
  return outputs;
}

std::string describe(std::uint64_t seed, const RandomGraph& g) {
  return fmt::format("graph of seed {}:\n{}", seed, g.graph->str());
}

TEST(RandomGraphs, HoldEveryOperatorManyTimes) {
  std::map<std::string, int, std::less<>> count;
  for (std::uint64_t seed = 0; seed < kGraphs; ++seed) {
    const RandomGraph g = random_graph(seed);
    for (const Graph::Node& node : g.graph->nodes()) ++count[std::string(node.operation.name())];
  }
#define WEFT_OP(Attributes, room) EXPECT_GE(count[std::string(Attributes::kName)], 40) << Attributes::kName;
#include "ops/ops.def"
#undef WEFT_OP
}

TEST(RandomGraphs, BothEnginesComputeWhatTheReferencesDo) {
  const auto f32 = load_torch_engine({.dtype = DType::kF32});
  const auto f64 = load_torch_engine({.dtype = DType::kF64});
  std::vector<double> all_tolerances;
  for (std::uint64_t seed = 0; seed < kGraphs; ++seed) {
    const RandomGraph g = random_graph(seed);
    SCOPED_TRACE(describe(seed, g));
    const std::vector<Tensor> want = evaluate_reference(*g.graph, g.weights, g.inputs);
    const std::vector<double> tolerance = tolerances(g, want);
    const std::vector<Tensor> cpu = run_cpu(g);
    const std::vector<Tensor> torch = f32->run(*g.graph, g.weights, g.inputs);
    const std::vector<Tensor> wide = f64->run(*g.graph, g.weights, g.inputs);
    ASSERT_EQ(cpu.size(), want.size());
    ASSERT_EQ(torch.size(), want.size());
    ASSERT_EQ(wide.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      SCOPED_TRACE(fmt::format("output {}", g.graph->outputs()[i].name));
      ASSERT_EQ(torch[i].type(), (TensorType{DType::kF32, want[i].shape()}));
      ASSERT_EQ(wide[i].type(), (TensorType{DType::kF64, want[i].shape()}));
      EXPECT_LE(testing::relative_error(cpu[i], want[i]), tolerance[i]) << "cpu";
      EXPECT_LE(testing::relative_error(torch[i], want[i]), tolerance[i]) << "torch f32";
      EXPECT_LE(testing::relative_error(wide[i], want[i]), tolerance[i] * (kF64 / kF32)) << "torch f64";
      all_tolerances.push_back(tolerance[i]);
    }
  }
  // The comparison is worth what its tolerances are: most are of the order of some roundings.
  std::ranges::sort(all_tolerances);
  const auto quantile = [&](double q) {
    return all_tolerances[static_cast<std::size_t>(q * static_cast<double>(all_tolerances.size() - 1))];
  };
  EXPECT_LE(quantile(0.5), 1e-4);
  EXPECT_LE(quantile(0.95), 1e-2);
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
TEST(RandomGraphs, GradientsAreThoseOfTheReferences) {
  constexpr double kStep = 1e-4;
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
    const double coarse = difference(kStep);
    const double fine = difference(kStep / 2);
    const double want = (4 * fine - coarse) / 3;
    const double loss = loss_at(0);
    double rounding = kF64 * std::abs(loss);
    for (const std::uint64_t noise : {1, 2, 3}) {
      const double there = loss_of(evaluate_rounding(g, kF32, noise), cotangents);
      rounding = std::max(rounding, kMargin * std::abs(there - loss) * (kF64 / kF32));
    }
    EXPECT_NEAR(got, want, std::abs(fine - coarse) + rounding / kStep);
  }
}

}  // namespace
}  // namespace weft
