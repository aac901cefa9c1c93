#include "onnx/export.h"

#include <algorithm>
#include <optional>
#include <typeindex>
#include <unordered_map>

#include "core/format.h"
#include "onnx/lowering.h"

namespace weft {
namespace onnx_export {
namespace {

using Lower = void (*)(const Operation&, Lowering&);

template <class A>
void lower_as(const Operation& operation, Lowering& to) {
  lower(*operation.as<A>(), to);
}

const std::unordered_map<std::type_index, Lower>& lowerings() {
  static const std::unordered_map<std::type_index, Lower> table = {
#define WEFT_OP(Attributes, room) {typeid(weft::Attributes), &lower_as<weft::Attributes>},
#include "ops/ops.def"
#undef WEFT_OP
  };
  return table;
}

// Whole numbers stay that.
Tensor plain(const Tensor& constant) { return constant.dtype() == DType::kI64 ? constant : constant.to(DType::kF32); }

// Walks a graph once, in its order.
class Exporter {
 public:
  Exporter(const Graph& graph, const std::map<std::string, Tensor, std::less<>>& weights, const OnnxOptions& options)
      : graph_(graph), model_(graph.name(), options.metadata), values_(graph.values().size()) {
    choose_outputs(options.outputs);
    mark_needed();
    bind(weights);
  }

  std::string run() {
    for (const Graph::Node& node : graph_.nodes()) {
      if (state(node.outputs[0]).needed) add(node);
    }
    for (const Graph::Output& output : outputs_) {
      const State& value = state(output.value);
      if (value.name != output.name || value.constant) {
        const std::string from =
            value.constant ? model_.constant(value.name, value.constant->to(DType::kF32)) : value.name;
        model_.node("Identity", {from}, {output.name}, {});
      }
      model_.output(output.name, graph_.value(output.value).type.shape);
    }
    return model_.finish();
  }

 private:
  struct State {
    bool needed = false;
    std::string name;
    std::optional<Tensor> constant;
  };

  State& state(int id) { return values_[static_cast<std::size_t>(id)]; }

  void choose_outputs(const std::vector<std::string>& names) {
    for (const Graph::Output& output : graph_.outputs()) {
      if (names.empty() || std::ranges::find(names, output.name) != names.end()) outputs_.push_back(output);
    }
    for (const std::string& name : names) {
      const bool known = std::ranges::any_of(outputs_, [&](const auto& output) { return output.name == name; });
      require<ConfigError>(known, "onnx", "{} has no output {}", graph_.name(), name);
    }
  }

  void mark_needed() {
    for (const Graph::Output& output : outputs_) state(output.value).needed = true;
    for (auto node = graph_.nodes().rbegin(); node != graph_.nodes().rend(); ++node) {
      const bool needed = std::ranges::any_of(node->outputs, [&](int id) { return state(id).needed; });
      for (const int id : node->outputs) state(id).needed = needed;
      for (const int id : node->inputs) state(id).needed |= needed;
    }
  }

  // Names all values; gives weights and constants their tensors.
  void bind(const std::map<std::string, Tensor, std::less<>>& weights) {
    for (int id = 0; id < static_cast<int>(values_.size()); ++id) {
      const Graph::ValueInfo& info = graph_.value(id);
      State& value = state(id);
      switch (info.kind) {
        case Graph::Kind::kInput:
          value.name = info.name;
          model_.input(info.name, info.type);
          break;
        case Graph::Kind::kParameter: {
          value.name = info.name;
          if (!value.needed) break;
          const auto weight = weights.find(info.name);
          require<WeightError>(weight != weights.end(), "onnx", "parameter {} has no weights", info.name);
          require<WeightError>(weight->second.shape() == info.type.shape, "onnx", "{} must be {}, got {}", info.name,
                               info.type.shape, weight->second.shape());
          value.constant = weight->second;
          break;
        }
        case Graph::Kind::kConstant:
          value.name = fmt::format("constant/{}", id);
          value.constant = info.constant;
          break;
        case Graph::Kind::kResult: {
          const Graph::Node& node = graph_.nodes()[static_cast<std::size_t>(info.node)];
          value.name = fmt::format("{}/{}_{}", node.place, node.operation.name(), id);
          break;
        }
      }
    }
    for (const Graph::Output& output : outputs_) {
      if (graph_.value(output.value).kind == Graph::Kind::kResult) state(output.value).name = output.name;
    }
  }

  void add(const Graph::Node& node) {
    if (std::ranges::all_of(node.inputs, [&](int id) { return state(id).constant.has_value(); })) return fold(node);
    Names inputs, outputs;
    std::vector<Tensor> converted;
    std::vector<const Tensor*> constants;
    converted.reserve(node.inputs.size());
    for (const int id : node.inputs) {
      const State& value = state(id);
      inputs.push_back(value.name);
      constants.push_back(value.constant ? &converted.emplace_back(plain(*value.constant)) : nullptr);
    }
    for (const int id : node.outputs) outputs.push_back(state(id).name);
    const auto found = lowerings().find(node.operation.type());
    require<UnsupportedError>(found != lowerings().end(), "onnx", "{} has no line in ops.def", node.operation.name());
    Lowering to(model_, graph_, node, std::move(inputs), std::move(outputs), std::move(constants));
    found->second(node.operation, to);
  }

  // What depends on weights only: computed now, by the references.
  void fold(const Graph::Node& node) {
    std::vector<Tensor> in, out;
    for (const int id : node.inputs) in.push_back(state(id).constant->to(DType::kF64));
    for (const int id : node.outputs) out.emplace_back(DType::kF64, graph_.value(id).type.shape);
    node.operation.reference(in, out);
    for (std::size_t i = 0; i < out.size(); ++i) {
      State& value = state(node.outputs[i]);
      value.constant = out[i];
      value.name = fmt::format("folded/{}", node.outputs[i]);
    }
  }

  const Graph& graph_;
  ModelWriter model_;
  std::vector<State> values_;
  std::vector<Graph::Output> outputs_;
};

}  // namespace
}  // namespace onnx_export

void require_onnx_export() {}

std::string export_onnx(const Graph& graph, const std::map<std::string, Tensor, std::less<>>& weights,
                        const OnnxOptions& options) {
  return onnx_export::Exporter(graph, weights, options).run();
}

}  // namespace weft
