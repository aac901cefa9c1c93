#include "ops/testing/rounding.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "ops/ops.h"
#include "ops/testing/op_test.h"

namespace weft::testing {
namespace {

// Roundings on the way to one element of the result.
double roundings(const Graph& graph, const Graph::Node& node) {
  const auto shape = [&](std::size_t i) { return graph.value(node.inputs[i]).type.shape; };
  const auto count = [](std::int64_t n) { return static_cast<double>(n) + 4; };
  const Operation& operation = node.operation;
  if (operation.as<Linear>() || operation.as<PatchEmbed>() || operation.as<Conv2d>()) {
    return count(shape(1).elements() / shape(1)[0]);
  }
  if (operation.as<DepthwiseConv>()) return count(shape(1)[2] * shape(1)[3]);
  if (const auto* op = operation.as<Involution>()) return count(op->taps());
  if (const auto* attention = operation.as<Attention>()) return count(shape(0)[2] / attention->heads + shape(1)[1]);
  if (operation.as<BiWkv>() || operation.as<CausalWkv>() || operation.as<Aft>()) return count(shape(0)[1]);
  if (operation.as<LayerNorm>()) return count(2 * shape(0)[-1]);
  if (const auto* mean = operation.as<Mean>()) return count(shape(0)[mean->axis]);
  // 16 weights, each from a coordinate that is rounded at the size of the grid.
  if (operation.as<Interpolate>()) return count(16 + 2 * std::max(shape(0)[1], shape(0)[2]));
  return count(0);
}

}  // namespace

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
    for (const int id : node.inputs) {
      const bool whole = graph.value(id).type.dtype == DType::kI64;  // whole numbers are not rounded
      in.push_back(changed(values[static_cast<std::size_t>(id)], whole ? 0 : n * epsilon));
    }
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

std::vector<double> tolerances(const RandomGraph& g, const std::vector<Tensor>& want, double epsilon) {
  std::vector<double> result(want.size(), epsilon);  // the one rounding of a result that is merely stored
  for (const std::uint64_t seed : {1, 2, 3}) {
    const std::vector<Tensor> moved = evaluate_rounding(g, epsilon, seed);
    for (std::size_t i = 0; i < want.size(); ++i) {
      result[i] = std::max(result[i], kRoundingMargin * relative_error(moved[i], want[i]));
    }
  }
  return result;
}

}  // namespace weft::testing
