#include "connect/linear_map.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/format.h"
#include "graph/dependence.h"

namespace weft {
namespace {

// What the steps read beside what comes from the step before.
std::set<int> fixed_inputs(const Graph& graph, const Mixing& mixing) {
  std::set<int> fixed;
  for (const Mixing::Step& step : mixing.steps) {
    const std::vector<int>& inputs = graph.nodes()[static_cast<std::size_t>(step.node)].inputs;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (i != step.input) fixed.insert(inputs[i]);
    }
  }
  return fixed;
}

std::set<int> fixed_inputs(const Graph& graph, std::span<const Mixing> mixings) {
  std::set<int> values;
  for (const Mixing& mixing : mixings) values.merge(fixed_inputs(graph, mixing));
  return values;
}

// Gives the graph an output for each value that has to be computed.
std::map<int, int> add_outputs(Graph& graph, const std::set<int>& values) {
  std::map<int, int> ports;
  for (const int id : values) {
    const Graph::Kind kind = graph.value(id).kind;
    if (kind == Graph::Kind::kParameter || kind == Graph::Kind::kConstant) continue;
    ports.emplace(id, static_cast<int>(graph.outputs().size()));
    graph.output(fmt::format("value{}", id), Value(graph, id));
  }
  return ports;
}

}  // namespace

std::int64_t captured_bytes(const Graph& graph, std::span<const Mixing> mixings) {
  std::size_t bytes = 0;
  for (const int id : fixed_inputs(graph, mixings)) bytes += graph.value(id).type.bytes();
  return static_cast<std::int64_t>(bytes);
}

Capture::Capture(Graph& graph, std::span<const Mixing> mixings, const Weights& weights, const Workers& workers)
    : workers_(workers),
      ports_(add_outputs(graph, fixed_inputs(graph, mixings))),
      plan_(graph, weights, workers, std::make_shared<PackCache>()) {
  for (const int id : fixed_inputs(graph, mixings)) {
    const Graph::ValueInfo& info = graph.value(id);
    if (info.kind == Graph::Kind::kConstant) constant_.emplace(id, info.constant);
    if (info.kind == Graph::Kind::kParameter) constant_.emplace(id, weights.find(info.name)->second);
  }
}

CapturedValues Capture::at(const Tensor& input) const {
  std::vector<Tensor> outputs;
  std::vector<std::byte*> out;
  for (const Plan::Port& port : plan_.outputs()) out.push_back(outputs.emplace_back(port.type).mutable_raw());
  Plan::Context context(plan_);
  const std::byte* const in = input.raw();
  plan_.run({&in, 1}, out, context, workers_);
  CapturedValues values = constant_;
  for (const auto& [id, port] : ports_) {
    const Tensor& value = outputs[static_cast<std::size_t>(port)];
    const auto is_finite = [](float x) { return std::isfinite(x); };
    require<NumericError>(std::ranges::all_of(value.data<float>(), is_finite), "connect",
                          "the network makes NaN or infinities of this input");
    values.emplace(id, value);
  }
  return values;
}

LinearMap::LinearMap(const Graph& graph, const Mixing& mixing, const CapturedValues& captured, const Workers& workers)
    : workers_(&workers) {
  const std::vector<bool> depends = depends_on_inputs(graph);
  Graph part(mixing.place);
  Weights constants;
  std::map<int, Value> values;
  Value running = part.input("x", graph.value(mixing.from).type);
  for (const int id : fixed_inputs(graph, mixing)) {
    const TensorType& type = graph.value(id).type;
    const std::string name = fmt::format("value{}", id);
    if (depends[static_cast<std::size_t>(id)]) {
      fixed_.push_back(captured.at(id));
      values.emplace(id, part.input(name, type));
    } else {  // kernels that prepare their weights want to know them
      constants.emplace(name, captured.at(id));
      values.emplace(id, part.parameter(name, type, init::constant(0)));
    }
  }
  for (const Mixing::Step& step : mixing.steps) {
    const Graph::Node& node = graph.nodes()[static_cast<std::size_t>(step.node)];
    std::vector<Value> in;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      in.push_back(i == step.input ? running : values.at(node.inputs[i]));
    }
    running = part.add(node.operation, in)[0];
  }
  part.output("y", running);
  macs_ = part.macs();
  plan_ = std::make_unique<Plan>(part, constants, workers, std::make_shared<PackCache>());
  context_ = std::make_unique<Plan::Context>(*plan_);
  zero_.resize(static_cast<std::size_t>(graph.value(mixing.to).type.shape.elements()));
  run(std::vector<float>(inputs()), zero_);
  for (const float value : zero_) offset_ = std::max(offset_, std::abs(value));
}

void LinearMap::run(std::span<const float> x, std::span<float> y) {
  std::vector<const std::byte*> in = {std::as_bytes(x).data()};
  for (const Tensor& tensor : fixed_) in.push_back(tensor.raw());
  std::byte* const out = std::as_writable_bytes(y).data();
  plan_->run(in, {&out, 1}, *context_, *workers_);
}

void LinearMap::apply(std::span<const float> x, std::span<float> y) {
  run(x, y);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] -= zero_[i];
}

}  // namespace weft
