// The way from a graph to a plan, and its beginning and end: ports, weights, and what of the graph is needed.
#include "cpu/plan_builder.h"

#include <algorithm>

#include "core/format.h"
#include "ops/embedding/embedding.h"
#include "ops/linear/linear.h"

namespace weft {

PlanBuilder::PlanBuilder(Plan& plan, const Graph& graph, const Weights& weights, const Workers& workers,
                         const std::shared_ptr<PackCache>& packs, DType precision)
    : plan_(plan),
      graph_(graph),
      workers_(workers),
      packs_(packs),
      precision_(precision),
      values_(graph.values().size()) {
  bind_ports();
  bind_weights(weights);
  mark_needed();
  for (const Graph::Node& node : graph.nodes()) {
    if (needed_[static_cast<std::size_t>(node.outputs[0])]) add(node);
  }
  bind_outputs();
  schedule();
  group();
  if (precision_ != DType::kF32) narrow();
  place();
}

void PlanBuilder::bind_ports() {
  for (int id = 0; id < static_cast<int>(values_.size()); ++id) {
    state(id).root = id;
    state(id).bytes = graph_.value(id).type.bytes();
  }
  for (const int id : graph_.inputs()) {
    state(id).is_input = true;
    state(id).port = static_cast<int>(plan_.inputs_.size());
    plan_.inputs_.push_back({graph_.value(id).name, graph_.value(id).type});
  }
  for (const Graph::Output& output : graph_.outputs()) {
    plan_.outputs_.push_back({output.name, graph_.value(output.value).type});
  }
}

void PlanBuilder::bind_weights(const Weights& weights) {
  const std::vector<bool> stored = taken_as_stored(graph_);
  for (const int id : graph_.parameters()) {
    const Graph::ValueInfo& info = graph_.value(id);
    const auto weight = weights.find(info.name);
    require<WeightError>(weight != weights.end(), graph_.name(), "parameter {} has no weights", info.name);
    require<WeightError>(weight->second.shape() == info.type.shape, graph_.name(), "parameter {} must be {}, got {}",
                         info.name, info.type.shape, weight->second.shape());
    state(id).constant = as_taken(weight->second, stored[static_cast<std::size_t>(id)]);
  }
  for (int id = 0; id < static_cast<int>(values_.size()); ++id) {
    const Tensor& constant = graph_.value(id).constant;
    if (graph_.value(id).kind != Graph::Kind::kConstant) continue;
    state(id).constant = constant.dtype() == DType::kI64 ? constant : constant.to(DType::kF32);  // tokens stay whole
  }
}

void PlanBuilder::mark_needed() {
  needed_.assign(values_.size(), false);
  consumers_.assign(values_.size(), 0);
  for (const Graph::Output& output : graph_.outputs()) {
    needed_[static_cast<std::size_t>(output.value)] = true;
    ++consumers_[static_cast<std::size_t>(output.value)];
  }
  const auto nodes = graph_.nodes();
  for (std::size_t i = nodes.size(); i-- > 0;) {
    const bool wanted =
        std::ranges::any_of(nodes[i].outputs, [&](int id) { return needed_[static_cast<std::size_t>(id)]; });
    if (!wanted) continue;
    for (const int id : nodes[i].outputs) needed_[static_cast<std::size_t>(id)] = true;
    for (const int id : nodes[i].inputs) {
      needed_[static_cast<std::size_t>(id)] = true;
      ++consumers_[static_cast<std::size_t>(id)];
    }
  }
}

void PlanBuilder::bind_outputs() {
  for (std::size_t port = 0; port < graph_.outputs().size(); ++port) {
    const int id = graph_.outputs()[port].value;
    ValueState& root = root_of(id);
    require<UnsupportedError>(graph_.value(id).type.dtype == DType::kF32, graph_.name(),
                              "the CPU engine gives f32 outputs only, got {} for {}", graph_.value(id).type,
                              graph_.outputs()[port].name);
    const bool free = !root.is_input && !state(id).constant && root.port < 0;
    if (free) {
      root.port = static_cast<int>(port);
    } else {
      copied_outputs_.emplace_back(id, port);
    }
  }
}

std::vector<bool> taken_as_stored(const Graph& graph) {
  std::vector<bool> result(graph.values().size(), true);
  for (const Graph::Node& node : graph.nodes()) {
    const bool takes = node.operation.as<Linear>() || node.operation.as<Embedding>();
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!takes || i != 1) result[static_cast<std::size_t>(node.inputs[i])] = false;
    }
  }
  for (const Graph::Output& output : graph.outputs()) result[static_cast<std::size_t>(output.value)] = false;
  return result;
}

Tensor as_taken(const Tensor& weight, bool as_stored) {
  const bool narrow = weight.dtype() == DType::kBF16 || weight.dtype() == DType::kF16;
  return as_stored && narrow ? weight : weight.to(DType::kF32);
}

Plan::Plan(const Graph& graph, const Weights& weights, const Workers& workers, std::shared_ptr<PackCache> packs,
           DType precision) {
  PlanBuilder(*this, graph, weights, workers, packs, precision);
}

}  // namespace weft
