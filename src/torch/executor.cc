#include "torch/executor.h"

#include <algorithm>
#include <cstring>
#include <typeindex>
#include <unordered_map>

#include "core/format.h"

namespace weft::torch_engine {
namespace {

template <class A>
at::Tensor lower_as(const Operation& operation, Inputs in, const Shape& out) {
  return lower(*operation.as<A>(), in, out);
}

using Lower = at::Tensor (*)(const Operation&, Inputs, const Shape&);

const std::unordered_map<std::type_index, Lower>& lowerings() {
  static const std::unordered_map<std::type_index, Lower> table = {
#define WEFT_OP(Attributes, room) {typeid(weft::Attributes), &lower_as<weft::Attributes>},
#include "ops/ops.def"
#undef WEFT_OP
  };
  return table;
}

std::size_t index(int id) { return static_cast<std::size_t>(id); }

}  // namespace

Executor::Executor(const Graph& graph, const at::TensorOptions& options)
    : graph_(graph), constants_(graph.values().size()) {
  std::vector<bool> needed(graph.values().size());
  for (const Graph::Output& output : graph.outputs()) needed[index(output.value)] = true;
  std::vector<bool> used = needed;  // by a later step, or as an output
  for (auto node = graph.nodes().rbegin(); node != graph.nodes().rend(); ++node) {
    require<UnsupportedError>(node->outputs.size() == 1, "torch", "{} has {} results, only one is possible",
                              node->operation.name(), node->outputs.size());
    if (!needed[index(node->outputs[0])]) continue;
    const auto lower = lowerings().find(node->operation.type());
    require<UnsupportedError>(lower != lowerings().end(), "torch", "{} has no line in ops.def", node->operation.name());
    Step& step = steps_.emplace_back(Step{.node = &*node, .lower = lower->second, .dead = {}});
    for (const int id : node->inputs) {
      needed[index(id)] = true;
      if (!used[index(id)]) step.dead.push_back(id);
      used[index(id)] = true;
    }
  }
  std::ranges::reverse(steps_);
  for (int id = 0; id < static_cast<int>(graph.values().size()); ++id) {
    const Graph::ValueInfo& info = graph.value(id);
    if (info.kind == Graph::Kind::kConstant && needed[index(id)]) {
      constants_[index(id)] = to_torch(info.constant, options);
    }
  }
}

void Executor::bind(std::span<const int> ids, std::span<const at::Tensor> tensors,
                    std::vector<at::Tensor>& values) const {
  require<ShapeError>(ids.size() == tensors.size(), graph_.name(), "takes {} tensors here, got {}", ids.size(),
                      tensors.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Graph::ValueInfo& info = graph_.value(ids[i]);
    const auto sizes = tensors[i].sizes();
    require<ShapeError>(sizes == extents(info.type.shape), graph_.name(), "{} must be {}, got {}", info.name,
                        info.type.shape, Shape(sizes.vec()));
    values[index(ids[i])] = tensors[i];
  }
}

std::vector<at::Tensor> Executor::forward(std::span<const at::Tensor> inputs,
                                          std::span<const at::Tensor> parameters) const {
  std::vector<at::Tensor> values = constants_;
  bind(graph_.inputs(), inputs, values);
  bind(graph_.parameters(), parameters, values);
  std::vector<at::Tensor> in;
  for (const Step& step : steps_) {
    in.clear();
    for (const int id : step.node->inputs) in.push_back(values[index(id)]);
    const int result = step.node->outputs[0];
    try {
      values[index(result)] = step.lower(step.node->operation, in, graph_.value(result).type.shape);
    } catch (c10::Error& error) {
      error.add_context(fmt::format("at {} {}", step.node->place, step.node->operation.name()));
      throw;
    }
    for (const int id : step.dead) values[index(id)].reset();
  }
  std::vector<at::Tensor> outputs;
  for (const Graph::Output& output : graph_.outputs()) outputs.push_back(values[index(output.value)]);
  return outputs;
}

at::Tensor to_torch(const Tensor& tensor, const at::TensorOptions& options) {
  const bool wide = c10::typeMetaToScalarType(options.dtype()) == at::kDouble;
  const Tensor source = tensor.to(wide ? DType::kF64 : DType::kF32);
  const auto release = [source](void*) {};  // the memory lives as long as this copy
  const at::Tensor same = torch::from_blob(const_cast<std::byte*>(source.raw()), extents(source.shape()), release,
                                           at::TensorOptions(wide ? at::kDouble : at::kFloat));
  return same.to(options.device());
}

Tensor from_torch(const at::Tensor& tensor) {
  const at::Tensor here = tensor.detach().to(at::kCPU).contiguous();
  Tensor result(here.scalar_type() == at::kDouble ? DType::kF64 : DType::kF32, Shape(here.sizes().vec()));
  if (result.bytes() > 0) std::memcpy(result.mutable_raw(), here.data_ptr(), result.bytes());
  return result;
}

}  // namespace weft::torch_engine
