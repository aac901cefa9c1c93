#include "torch/executor.h"

#include <algorithm>
#include <cstring>
#include <ranges>
#include <set>

#include "core/format.h"
#include "torch/allocator.h"
#include "torch/region.h"
#include "torch/segment.h"

namespace weft::torch_engine {
namespace {

std::size_t index(int id) { return static_cast<std::size_t>(id); }

// "backbone.layers.3" of "backbone.layers.3.att"; empty when there is no number in the place.
std::string_view block_of(std::string_view place) {
  for (std::size_t begin = 0; begin < place.size();) {
    const std::size_t end = std::min(place.find('.', begin), place.size());
    const std::string_view part = place.substr(begin, end - begin);
    if (!part.empty() && part.find_first_not_of("0123456789") == part.npos) return place.substr(0, end);
    begin = end + 1;
  }
  return {};
}

// The nodes that outputs need.
std::vector<const Graph::Node*> needed_nodes(const Graph& graph) {
  std::vector<bool> needed(graph.values().size());
  for (const Graph::Output& output : graph.outputs()) needed[index(output.value)] = true;
  std::vector<const Graph::Node*> nodes;
  for (auto node = graph.nodes().rbegin(); node != graph.nodes().rend(); ++node) {
    if (std::ranges::none_of(node->outputs, [&](int id) { return needed[index(id)]; })) continue;
    nodes.push_back(&*node);
    for (const int id : node->inputs) needed[index(id)] = true;
  }
  std::ranges::reverse(nodes);
  return nodes;
}

// By value, how often it is read; an output of the graph is read once more.
std::vector<int> count_uses(const Graph& graph, std::span<const Graph::Node* const> nodes) {
  std::vector<int> uses(graph.values().size());
  for (const Graph::Output& output : graph.outputs()) ++uses[index(output.value)];
  for (const Graph::Node* node : nodes) {
    for (const int id : node->inputs) ++uses[index(id)];
  }
  return uses;
}

// Of attention, whose scores are many, so that those of some entries stay in the second-level cache; else 0.
std::int64_t entries_at_once(const Graph& graph, const Graph::Node& node, const std::vector<bool>& shared,
                             std::int64_t batch) {
  constexpr std::int64_t kScores = 128 * 1024;
  const auto* attention = node.operation.as<Attention>();
  if (!attention || batch == 0) return 0;
  const auto shape = [&](std::size_t i) -> const Shape& { return graph.value(node.inputs[i]).type.shape; };
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (shared[index(node.inputs[i])] || shape(i)[0] != batch || shape(i).elements() == 0) return 0;
  }
  return std::clamp<std::int64_t>(kScores / (attention->heads * shape(0)[1] * shape(1)[1]), 1, batch);
}

// Says for each step what nobody reads after it.
void find_dead(std::vector<Step>& steps, std::span<const int> outputs) {
  std::set<int> read(outputs.begin(), outputs.end());
  for (Step& step : std::views::reverse(steps)) {
    for (const std::vector<int>* ids : {&step.inputs, &step.outputs}) {
      for (const int id : *ids) {
        if (read.insert(id).second) step.dead.push_back(id);
      }
    }
  }
}

}  // namespace

Executor::Executor(const Graph& graph, const ExecutorOptions& options)
    : graph_(graph), constants_(graph.values().size()) {
  const std::vector<const Graph::Node*> nodes = needed_nodes(graph);
  const std::vector<int> uses = count_uses(graph, nodes);
  const auto workers = options.workers ? options.workers : std::make_shared<const Workers>(1);
  // Regions end with blocks, recomputed or not, so that both give the same bits.
  const auto same_segment = [&](const Graph::Node* a, const Graph::Node* b) {
    return (!options.recompute && !options.fused) || block_of(a->place) == block_of(b->place);
  };
  for (auto begin = nodes.begin(); begin != nodes.end();) {
    const auto end = std::find_if(begin, nodes.end(), [&](const Graph::Node* n) { return !same_segment(*begin, n); });
    const auto segment = std::make_shared<Segment>();
    segment->graph = &graph;
    segment->workers = workers;
    segment->bf16 = options.bf16;
    segment->recompute = options.recompute && !block_of((*begin)->place).empty();
    add_steps({begin, end}, uses, options, *segment);
    segments_.push_back(segment);
    begin = end;
  }
  dead_.resize(segments_.size());
  std::set<int> read;
  for (const Graph::Output& output : graph.outputs()) read.insert(output.value);
  for (std::size_t i = segments_.size(); i-- > 0;) {
    for (const int id : segments_[i]->inputs) {
      if (read.insert(id).second) dead_[i].push_back(id);
    }
  }
  for (int id = 0; id < static_cast<int>(graph.values().size()); ++id) {
    const Graph::ValueInfo& info = graph.value(id);
    if (info.kind == Graph::Kind::kConstant && uses[index(id)] > 0) {
      constants_[index(id)] = to_torch(info.constant, options.tensor);
    }
  }
}

Executor::~Executor() = default;

void Executor::add_steps(std::span<const Graph::Node* const> nodes, std::span<const int> uses,
                         const ExecutorOptions& options, Segment& segment) const {
  const bool f32_on_cpu =
      c10::typeMetaToScalarType(options.tensor.dtype()) == at::kFloat && options.tensor.device().is_cpu();
  const std::int64_t batch = graph_.inputs().empty() || graph_.value(graph_.inputs()[0]).type.shape.rank() == 0
                                 ? 0
                                 : graph_.value(graph_.inputs()[0]).type.shape[0];
  const std::vector<bool> shared = find_shared(graph_);
  const bool fused = options.fused && f32_on_cpu;
  std::vector<Stage> stages;
  if (fused) {
    keep_freed_memory();
    stages = find_regions(graph_, nodes, shared, batch);
  } else {
    for (const Graph::Node* node : nodes) stages.push_back({{node}, false});
  }
  for (const Stage& stage : stages) {
    RegionNodes region = make_region(stage.nodes, uses);
    Step& step = segment.steps.emplace_back();
    step.node = region.nodes[0];
    step.inputs = stage.is_region ? region.inputs : region.nodes[0]->inputs;
    step.outputs = stage.is_region ? region.outputs : region.nodes[0]->outputs;
    if (!stage.is_region) {
      if (fused) step.entries = entries_at_once(graph_, *step.node, shared, batch);
      continue;
    }
    const TilePlan::Options tiles{.batch = batch, .threads = segment.workers->count(), .bf16 = options.bf16};
    step.region = std::make_shared<const Region>(graph_, std::move(region), shared, tiles, segment.workers);
  }
  const RegionNodes all = make_region({nodes.begin(), nodes.end()}, uses);
  segment.inputs = all.inputs;
  segment.outputs = all.outputs;
  find_dead(segment.steps, segment.outputs);
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
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    const std::shared_ptr<const Segment>& segment = segments_[i];
    std::vector<at::Tensor> in;
    for (const int id : segment->inputs) in.push_back(values[index(id)]);
    for (const int id : dead_[i]) values[index(id)].reset();
    const bool recompute = segment->recompute && at::GradMode::is_enabled() &&
                           std::ranges::any_of(in, [](const at::Tensor& tensor) { return tensor.requires_grad(); });
    const auto results = recompute ? run_recomputing(segment, in) : segment->run(std::move(in));
    for (std::size_t j = 0; j < results.size(); ++j) values[index(segment->outputs[j])] = results[j];
  }
  std::vector<at::Tensor> outputs;
  for (const Graph::Output& output : graph_.outputs()) outputs.push_back(values[index(output.value)]);
  return outputs;
}

at::Tensor to_torch(const Tensor& tensor, const at::TensorOptions& options) {
  const bool whole = tensor.dtype() == DType::kI64;
  const bool wide = c10::typeMetaToScalarType(options.dtype()) == at::kDouble;
  const Tensor source = whole ? tensor : tensor.to(wide ? DType::kF64 : DType::kF32);
  const auto release = [source](void*) {};  // the memory lives as long as this copy
  const at::Tensor same = torch::from_blob(const_cast<std::byte*>(source.raw()), extents(source.shape()), release,
                                           at::TensorOptions(whole  ? at::kLong
                                                             : wide ? at::kDouble
                                                                    : at::kFloat));
  return same.to(options.device());
}

Tensor from_torch(const at::Tensor& tensor) {
  const at::Tensor here = tensor.detach().to(at::kCPU).contiguous();
  Tensor result(here.scalar_type() == at::kDouble ? DType::kF64 : DType::kF32, Shape(here.sizes().vec()));
  if (result.bytes() > 0) std::memcpy(result.mutable_raw(), here.data_ptr(), result.bytes());
  return result;
}

}  // namespace weft::torch_engine
