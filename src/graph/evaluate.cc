#include "graph/evaluate.h"

#include <optional>

namespace weft {

std::vector<Tensor> evaluate_reference(const Graph& graph, const std::map<std::string, Tensor, std::less<>>& weights,
                                       std::span<const Tensor> inputs) {
  std::vector<std::optional<Tensor>> values(graph.values().size());
  const auto bind = [&](int id, const Tensor& tensor) {
    const Graph::ValueInfo& info = graph.value(id);
    require<ShapeError>(tensor.shape() == info.type.shape, graph.name(), "{} must be {}, got {}", info.name,
                        info.type.shape, tensor.shape());
    values[static_cast<std::size_t>(id)] = tensor.to(DType::kF64);
  };
  require<ShapeError>(inputs.size() == graph.inputs().size(), graph.name(), "takes {} inputs, got {}",
                      graph.inputs().size(), inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) bind(graph.inputs()[i], inputs[i]);
  for (const int id : graph.parameters()) {
    const auto weight = weights.find(graph.value(id).name);
    require<WeightError>(weight != weights.end(), graph.name(), "parameter {} has no weights", graph.value(id).name);
    bind(id, weight->second);
  }
  for (int id = 0; id < static_cast<int>(values.size()); ++id) {
    if (graph.value(id).kind == Graph::Kind::kConstant) bind(id, graph.value(id).constant);
  }
  for (const Graph::Node& node : graph.nodes()) {
    std::vector<Tensor> in, out;
    for (const int id : node.inputs) in.push_back(*values[static_cast<std::size_t>(id)]);
    for (const int id : node.outputs) out.emplace_back(DType::kF64, graph.value(id).type.shape);
    node.operation.reference(in, out);
    for (std::size_t i = 0; i < out.size(); ++i) values[static_cast<std::size_t>(node.outputs[i])] = out[i];
  }
  std::vector<Tensor> outputs;
  for (const Graph::Output& output : graph.outputs())
    outputs.push_back(*values[static_cast<std::size_t>(output.value)]);
  return outputs;
}

}  // namespace weft
