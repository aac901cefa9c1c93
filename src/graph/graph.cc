#include "graph/graph.h"

#include <algorithm>
#include <cmath>

#include "graph/dependence.h"

namespace weft {

const TensorType& Value::type() const { return graph_->value(id_).type; }

Value Graph::new_value(ValueInfo info) {
  values_.push_back(std::move(info));
  return {*this, static_cast<int>(values_.size()) - 1};
}

Value Graph::input(std::string name, TensorType type) {
  const Value value = new_value({.kind = Kind::kInput, .type = std::move(type), .name = std::move(name)});
  inputs_.push_back(value.id());
  return value;
}

Value Graph::parameter(std::string name, TensorType type, Initializer initializer) {
  require<ConfigError>(parameter_names_.insert(name).second, name_, "parameter {} is declared twice", name);
  const Value value = new_value({.kind = Kind::kParameter,
                                 .type = std::move(type),
                                 .name = std::move(name),
                                 .initializer = std::move(initializer)});
  parameters_.push_back(value.id());
  return value;
}

Value Graph::buffer(std::string name, TensorType type, Initializer initializer) {
  const Value value = parameter(std::move(name), std::move(type), std::move(initializer));
  values_.back().buffer = true;
  return value;
}

Value Graph::constant(Tensor tensor) {
  TensorType type = tensor.type();
  return new_value({.kind = Kind::kConstant, .type = std::move(type), .constant = std::move(tensor)});
}

std::vector<TensorType> Graph::types_of(std::span<const int> ids) const {
  std::vector<TensorType> types;
  for (const int id : ids) types.push_back(value(id).type);
  return types;
}

std::vector<Value> Graph::add(Operation operation, std::span<const Value> inputs) {
  Node node{.operation = std::move(operation), .inputs = {}, .outputs = {}, .place = place_};
  for (const Value& input : inputs) {
    require<ConfigError>(&input.graph() == this, node.operation.name(), "an input belongs to another graph");
    node.inputs.push_back(input.id());
  }
  std::vector<TensorType> types;
  try {
    types = node.operation.infer(types_of(node.inputs));
  } catch (const ShapeError& error) {
    throw ShapeError(fmt::format("{} (at {}{}{})", error.what(), name_, place_.empty() ? "" : "/", place_));
  }
  std::vector<Value> results;
  for (TensorType& type : types) {
    results.push_back(
        new_value({.kind = Kind::kResult, .type = std::move(type), .node = static_cast<int>(nodes_.size())}));
    node.outputs.push_back(results.back().id());
  }
  nodes_.push_back(std::move(node));
  return results;
}

Value Graph::add_one(Operation operation, std::initializer_list<Value> inputs) {
  return add(std::move(operation), std::span(inputs.begin(), inputs.size())).front();
}

void Graph::output(std::string name, Value value) { outputs_.push_back({std::move(name), value.id()}); }

void Graph::update(Value buffer, Value value) {
  require<ShapeError>(value.type() == buffer.type(), name_, "{} is {}, its next value {}",
                      this->value(buffer.id()).name, buffer.type(), value.type());
  updates_.push_back({buffer.id(), value.id()});
}

Value Graph::state(std::string name, Tensor empty) {
  if (training_) return constant(std::move(empty));
  const Value value = input(std::move(name), empty.type());
  states_.push_back({.input = value.id(), .output = -1, .empty = std::move(empty)});
  return value;
}

void Graph::next_state(Value state, Value value) {
  require<ShapeError>(value.type() == state.type(), name_, "{} is {}, its next value {}", this->value(state.id()).name,
                      state.type(), value.type());
  if (training_) return;
  const auto found = std::ranges::find(states_, state.id(), &State::input);
  require<ConfigError>(found != states_.end() && found->output < 0, name_, "{} is no state without a next value",
                       this->value(state.id()).name);
  found->output = static_cast<int>(outputs_.size());
  output(this->value(state.id()).name, value);
}

std::int64_t Graph::parameter_count() const {
  std::int64_t count = 0;
  for (const int id : parameters_) {
    if (!value(id).buffer) count += value(id).type.shape.elements();
  }
  return count;
}

std::int64_t Graph::macs() const {
  std::int64_t count = 0;
  const std::vector<bool> depends = depends_on_inputs(*this);
  for (const Node& node : nodes_) {
    if (!depends[static_cast<std::size_t>(node.outputs.front())]) continue;
    const bool overflow = __builtin_add_overflow(count, node.operation.macs(types_of(node.inputs)), &count);
    require<ShapeError>(!overflow, name_, "has more multiply-accumulates than 63 bits can count");
  }
  return count;
}

std::string Graph::str() const {
  std::string text = fmt::format("graph {}\n", name_);
  for (const int id : inputs_) text += fmt::format("  %{}: {} = input {}\n", id, value(id).type, value(id).name);
  for (const int id : parameters_) {
    const ValueInfo& info = value(id);
    text += fmt::format("  %{}: {} = {} {}\n", id, info.type, info.buffer ? "buffer" : "parameter", info.name);
  }
  for (const Node& node : nodes_) {
    for (const int id : node.outputs) text += fmt::format("  %{}: {}", id, value(id).type);
    text += fmt::format(" = {}(", node.operation.name());
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      text += fmt::format("{}%{}", i == 0 ? "" : ", ", node.inputs[i]);
    const std::string attributes = node.operation.attributes();
    text += fmt::format("){}{}{}", attributes.empty() ? "" : " {", attributes, attributes.empty() ? "" : "}");
    text += fmt::format("{}{}\n", node.place.empty() ? "" : "  # ", node.place);
  }
  for (const Output& out : outputs_) text += fmt::format("  output {} = %{}\n", out.name, out.value);
  return text;
}

Scope Scope::operator[](std::string_view name) const {
  return Scope(*graph_, path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name));
}

Value Scope::param(std::string_view name, Shape shape, Initializer initializer) const {
  return graph_->parameter((*this)[name].path(), {DType::kF32, std::move(shape)}, std::move(initializer));
}

Value Scope::buffer(std::string_view name, Shape shape, Initializer initializer) const {
  return graph_->buffer((*this)[name].path(), {DType::kF32, std::move(shape)}, std::move(initializer));
}

Value Scope::state(std::string_view name, Tensor empty) const {
  return graph_->state((*this)[name].path(), std::move(empty));
}

namespace init {

Initializer constant(float value) {
  return [value](std::span<float> values, std::mt19937_64&) { std::ranges::fill(values, value); };
}

Initializer truncated_normal(float deviation) {
  return [deviation](std::span<float> values, std::mt19937_64& random) {
    std::normal_distribution<float> normal;
    for (float& value : values) {
      do value = normal(random);
      while (std::abs(value) > 2);
      value *= deviation;
    }
  };
}

Initializer uniform(float bound) {
  return [bound](std::span<float> values, std::mt19937_64& random) {
    std::uniform_real_distribution<float> uniform(-bound, bound);
    for (float& value : values) value = uniform(random);
  };
}

Initializer uniform_fan_in(std::int64_t fan_in) { return uniform(1 / std::sqrt(static_cast<float>(fan_in))); }

Initializer each(std::function<double(std::int64_t)> f) {
  return [f = std::move(f)](std::span<float> values, std::mt19937_64&) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(f(static_cast<std::int64_t>(i)));
  };
}

}  // namespace init
}  // namespace weft
