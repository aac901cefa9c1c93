#include "torch/region.h"

#include <algorithm>
#include <map>
#include <unordered_set>

#include "core/format.h"
#include "graph/dependence.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// What autograd's record holds on to.
struct Record : torch::CustomClassHolder {
  Record(const Graph& of, const RegionNodes& nodes, std::shared_ptr<const TilePlan> tile_plan,
         std::shared_ptr<const Workers> threads)
      : plan(std::move(tile_plan)), workers(std::move(threads)) {
    for (const std::vector<int>* ids : {&nodes.inputs, &nodes.outputs}) {
      for (const int id : *ids) shapes.push_back(of.value(id).type.shape);
    }
    for (const int id : plan->kept()) shapes.push_back(of.value(id).type.shape);
    inputs = nodes.inputs.size();
    outputs = nodes.outputs.size();
  }
  Tensor empty(std::size_t line) const {
    const auto& extents = shapes[line].extents();
    return at::empty(at::IntArrayRef(extents.data(), extents.size()), at::kFloat);
  }

  std::shared_ptr<const TilePlan> plan;
  std::shared_ptr<const Workers> workers;
  std::vector<Shape> shapes;  // by table line
  std::size_t inputs = 0, outputs = 0;
};

std::vector<float*> pointers(const variable_list& tensors) {
  std::vector<float*> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.defined() ? tensor.data_ptr<float>() : nullptr);
  return result;
}

variable_list run_forward(const Record& record, variable_list& table) {
  for (std::size_t line = table.size(); line < record.shapes.size(); ++line) table.push_back(record.empty(line));
  record.plan->forward(pointers(table), *record.workers);
  const auto first = table.begin() + static_cast<std::ptrdiff_t>(record.inputs);
  return {first, first + static_cast<std::ptrdiff_t>(record.outputs)};
}

struct Tiled : public Function<Tiled> {
  static variable_list forward(AutogradContext* context, const c10::intrusive_ptr<Record>& record,
                               at::TensorList inputs) {
    variable_list table = inputs.vec();
    const variable_list outputs = run_forward(*record, table);
    const auto read = record->plan->read_backward();
    for (std::size_t line = 0; line < table.size(); ++line) {
      if (!read[line]) table[line].reset();
    }
    context->save_for_backward(table);
    context->saved_data["record"] = c10::IValue::make_capsule(record);
    return outputs;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    require<UnsupportedError>(!at::GradMode::is_enabled(), "torch", "a fused region can be differentiated once only");
    const auto capsule = context->saved_data["record"].toCapsule();
    const Record& record = static_cast<const Record&>(*capsule);
    variable_list table = context->get_saved_variables();
    const std::size_t lines = record.shapes.size();
    table.resize(2 * lines);
    for (std::size_t i = 0; i < record.outputs; ++i) {
      table[lines + record.inputs + i] = gradients[i].contiguous();
    }
    variable_list result(1);  // nothing for the record
    for (std::size_t i = 0; i < record.inputs; ++i) {
      if (record.plan->makes_gradient(i)) table[lines + i] = record.empty(i);
      result.push_back(table[lines + i]);
    }
    record.plan->backward(pointers(table), *record.workers);
    return result;
  }
};

}  // namespace

Region::Region(const Graph& graph, RegionNodes nodes, std::vector<bool> shared, const TilePlan::Options& options,
               std::shared_ptr<const Workers> workers)
    : graph_(graph),
      nodes_(std::move(nodes)),
      shared_(std::move(shared)),
      options_(options),
      workers_(std::move(workers)) {}

std::shared_ptr<const TilePlan> Region::plan_for(std::vector<bool> wanted) const {
  const std::scoped_lock lock(mutex_);
  std::shared_ptr<const TilePlan>& plan = plans_[wanted];
  if (!plan) {
    const auto copy = [](const std::vector<bool>& from) {
      auto to = std::make_unique<bool[]>(from.size());
      std::ranges::copy(from, to.get());
      return to;
    };
    const auto shared = copy(shared_);
    const auto wants = copy(wanted);
    plan = std::make_shared<const TilePlan>(graph_, nodes_, std::span<const bool>(shared.get(), shared_.size()),
                                            std::span<const bool>(wants.get(), wanted.size()), options_);
  }
  return plan;
}

std::vector<Tensor> Region::forward(const std::vector<Tensor>& inputs) const {
  std::vector<bool> wanted;
  variable_list table;
  for (const Tensor& input : inputs) {
    wanted.push_back(at::GradMode::is_enabled() && input.requires_grad());
    table.push_back(input.contiguous());
  }
  const auto record = c10::make_intrusive<Record>(graph_, nodes_, plan_for(wanted), workers_);
  if (std::ranges::find(wanted, true) != wanted.end()) return Tiled::apply(record, at::TensorList(table));
  return run_forward(*record, table);
}

std::vector<bool> find_shared(const Graph& graph) {
  std::vector<bool> shared = depends_on_inputs(graph);
  shared.flip();
  return shared;
}

std::vector<Stage> find_regions(const Graph& graph, std::span<const Graph::Node* const> nodes,
                                const std::vector<bool>& shared, std::int64_t batch) {
  // Regions are numbered in the order in which they run: a node joins the first that has, or comes after, all it reads.
  const auto is_shared = std::make_unique<bool[]>(shared.size());
  std::ranges::copy(shared, is_shared.get());
  struct Origin {
    std::size_t region;  // its own, or the one it is made for
    bool tiled;
  };
  std::map<int, Origin> origins;
  std::vector<std::vector<const Graph::Node*>> regions, others;  // the others come before the region of their number
  for (const Graph::Node* node : nodes) {
    const bool tiled = can_tile(graph, *node, {is_shared.get(), shared.size()}, batch);
    std::size_t region = 0;
    for (const int id : node->inputs) {
      const auto origin = origins.find(id);
      if (origin == origins.end()) continue;  // made before
      region = std::max(region, origin->second.region + (origin->second.tiled && !tiled ? 1 : 0));
    }
    if (region >= regions.size()) {
      regions.resize(region + 1);
      others.resize(region + 1);
    }
    (tiled ? regions : others)[region].push_back(node);
    for (const int id : node->outputs) origins[id] = {region, tiled};
  }
  std::vector<Stage> stages;
  for (std::size_t i = 0; i < regions.size(); ++i) {
    for (const Graph::Node* node : others[i]) stages.push_back({{node}, false});
    if (!regions[i].empty()) stages.push_back({regions[i], true});
  }
  return stages;
}

RegionNodes make_region(std::vector<const Graph::Node*> nodes, std::span<const int> uses) {
  RegionNodes region{.nodes = std::move(nodes), .inputs = {}, .outputs = {}};
  std::map<int, int> within;  // uses
  std::unordered_set<int> made, seen;
  for (const Graph::Node* node : region.nodes) {
    for (const int id : node->inputs) {
      ++within[id];
      if (!made.contains(id) && seen.insert(id).second) region.inputs.push_back(id);
    }
    made.insert(node->outputs.begin(), node->outputs.end());
  }
  for (const Graph::Node* node : region.nodes) {
    for (const int id : node->outputs) {
      if (uses[index(id)] > within[id]) region.outputs.push_back(id);
    }
  }
  return region;
}

}  // namespace weft::torch_engine
