#include "cpu/plan.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/format.h"
#include "cpu/memory_plan.h"
#include "ops/kernels.h"

namespace weft {

// Turns a graph into a plan: fold, prepare kernels, find lifetimes, place buffers.
class PlanBuilder {
 public:
  PlanBuilder(Plan& plan, const Graph& graph, const Weights& weights, const Workers& workers,
              const std::shared_ptr<PackCache>& packs)
      : plan_(plan), graph_(graph), workers_(workers), packs_(packs), values_(graph.values().size()) {
    bind_ports();
    bind_weights(weights);
    mark_needed();
    for (const Graph::Node& node : graph.nodes()) {
      if (needed_[static_cast<std::size_t>(node.outputs[0])]) add(node);
    }
    place();
  }

 private:
  using Location = Plan::Location;

  struct ValueState {
    std::optional<Tensor> constant;
    int root = -1;    // the value whose memory this one is (itself unless a view)
    int buffer = -1;  // of a root in the arena
    int port = -1;    // of a root that is an input or is written straight to an output
    bool is_input = false;
  };

  struct Pending {
    std::vector<int> inputs, outputs;
    std::size_t scratch_buffer;
  };

  ValueState& state(int id) { return values_[static_cast<std::size_t>(id)]; }
  ValueState& root_of(int id) { return state(state(id).root); }

  void bind_ports() {
    for (int id = 0; id < static_cast<int>(values_.size()); ++id) state(id).root = id;
    for (const int id : graph_.inputs()) {
      state(id).is_input = true;
      state(id).port = static_cast<int>(plan_.inputs_.size());
      plan_.inputs_.push_back({graph_.value(id).name, graph_.value(id).type});
    }
    for (const Graph::Output& output : graph_.outputs()) {
      plan_.outputs_.push_back({output.name, graph_.value(output.value).type});
    }
  }

  void bind_weights(const Weights& weights) {
    for (const int id : graph_.parameters()) {
      const Graph::ValueInfo& info = graph_.value(id);
      const auto weight = weights.find(info.name);
      require<WeightError>(weight != weights.end(), graph_.name(), "parameter {} has no weights", info.name);
      require<WeightError>(weight->second.shape() == info.type.shape, graph_.name(), "parameter {} must be {}, got {}",
                           info.name, info.type.shape, weight->second.shape());
      state(id).constant = weight->second.to(DType::kF32);
    }
    for (int id = 0; id < static_cast<int>(values_.size()); ++id) {
      if (graph_.value(id).kind == Graph::Kind::kConstant)
        state(id).constant = graph_.value(id).constant.to(DType::kF32);
    }
  }

  void mark_needed() {
    needed_.assign(values_.size(), false);
    for (const Graph::Output& output : graph_.outputs()) needed_[static_cast<std::size_t>(output.value)] = true;
    const auto nodes = graph_.nodes();
    for (std::size_t i = nodes.size(); i-- > 0;) {
      const bool wanted =
          std::ranges::any_of(nodes[i].outputs, [&](int id) { return needed_[static_cast<std::size_t>(id)]; });
      if (!wanted) continue;
      for (const int id : nodes[i].outputs) needed_[static_cast<std::size_t>(id)] = true;
      for (const int id : nodes[i].inputs) needed_[static_cast<std::size_t>(id)] = true;
    }
  }

  void add(const Graph::Node& node) {
    const bool foldable = std::ranges::all_of(node.inputs, [&](int id) { return state(id).constant.has_value(); });
    if (node.operation.is_view()) {
      const int out = node.outputs[0];
      if (foldable) {
        state(out).constant = state(node.inputs[0]).constant->reshaped(graph_.value(out).type.shape);
      } else {
        state(out).root = state(node.inputs[0]).root;
      }
      return;
    }
    auto [kernel, macs] = prepare(node);
    if (foldable) return fold(node, *kernel);

    const auto scratch = static_cast<std::size_t>(buffers_.size());
    const int step = static_cast<int>(plan_.steps_.size());
    buffers_.push_back({kernel->scratch_bytes(), step, step});
    pending_.push_back({node.inputs, node.outputs, scratch});
    plan_.steps_.push_back({std::move(kernel), std::string(node.operation.name()), node.place, macs});
  }

  std::pair<std::unique_ptr<Kernel>, std::int64_t> prepare(const Graph::Node& node) {
    std::vector<TensorType> in, out;
    std::vector<const Tensor*> constants;
    for (const int id : node.inputs) {
      in.push_back(graph_.value(id).type);
      constants.push_back(state(id).constant ? &*state(id).constant : nullptr);
    }
    for (const int id : node.outputs) out.push_back(graph_.value(id).type);
    const KernelRequest request{
        .in = in, .out = out, .constants = constants, .threads = workers_.count(), .packs = packs_.get()};
    return {make_kernel(node.operation, request), node.operation.macs(in)};
  }

  void fold(const Graph::Node& node, const Kernel& kernel) {
    std::vector<const std::byte*> in;
    std::vector<std::byte*> out;
    for (const int id : node.inputs) in.push_back(state(id).constant->raw());
    for (const int id : node.outputs) {
      state(id).constant.emplace(graph_.value(id).type);
      out.push_back(state(id).constant->mutable_raw());
    }
    Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel.scratch_bytes())});
    kernel.run({.in = in, .out = out, .scratch = scratch.mutable_raw(), .workers = workers_});
  }

  // Gives every value a place: ports first, then arena buffers, a result taking over a dead input where its kernel
  // allows.
  void place() {
    bind_outputs();
    find_last_uses();
    for (int step = 0; step < static_cast<int>(pending_.size()); ++step) {
      for (std::size_t i = 0; i < pending_[static_cast<std::size_t>(step)].outputs.size(); ++i) {
        const int id = pending_[static_cast<std::size_t>(step)].outputs[i];
        if (state(id).port >= 0) continue;
        const int reused = i == 0 ? buffer_to_overwrite(step) : -1;
        if (reused >= 0) {
          state(id).buffer = reused;
        } else {
          state(id).buffer = static_cast<int>(buffers_.size());
          buffers_.push_back({graph_.value(id).type.bytes(), step, step});
        }
        Lifetime& buffer = buffers_[static_cast<std::size_t>(state(id).buffer)];
        buffer.last = std::max(buffer.last, last_use(id));
      }
    }
    const MemoryPlan memory = plan_memory(buffers_);
    plan_.arena_bytes_ = memory.bytes;
    for (const Pending& step : pending_) {
      Plan::Wiring wiring{.in = {plan_.in_locations_.size(), step.inputs.size()},
                          .out = {plan_.out_locations_.size(), step.outputs.size()},
                          .scratch = memory.offsets[step.scratch_buffer]};
      for (const int id : step.inputs) plan_.in_locations_.push_back(locate(id, memory));
      for (const int id : step.outputs) plan_.out_locations_.push_back(locate(id, memory));
      plan_.wiring_.push_back(wiring);
    }
    for (const auto& [value, port] : copied_outputs_) {
      plan_.copies_.push_back({locate(value, memory), port, graph_.value(value).type.bytes()});
    }
  }

  void bind_outputs() {
    for (std::size_t port = 0; port < graph_.outputs().size(); ++port) {
      const int id = graph_.outputs()[port].value;
      ValueState& root = root_of(id);
      const bool free = !root.is_input && !state(id).constant && root.port < 0;
      if (free) {
        root.port = static_cast<int>(port);
      } else {
        copied_outputs_.emplace_back(id, port);
      }
    }
  }

  void find_last_uses() {
    last_use_.assign(values_.size(), -1);
    for (int step = 0; step < static_cast<int>(pending_.size()); ++step) {
      for (const int id : pending_[static_cast<std::size_t>(step)].inputs) {
        last_use_[static_cast<std::size_t>(state(id).root)] = step;
      }
    }
  }
  int last_use(int id) const { return last_use_[static_cast<std::size_t>(values_[static_cast<std::size_t>(id)].root)]; }

  // The arena buffer of an input of this step that nobody reads afterwards and that the kernel may write over, or −1.
  int buffer_to_overwrite(int step) {
    const Pending& pending = pending_[static_cast<std::size_t>(step)];
    const Kernel& kernel = *plan_.steps_[static_cast<std::size_t>(step)].kernel;
    const std::size_t bytes = graph_.value(pending.outputs[0]).type.bytes();
    for (std::size_t i = 0; i < pending.inputs.size(); ++i) {
      const int id = pending.inputs[i];
      const bool same_memory_elsewhere =
          std::ranges::count_if(pending.inputs, [&](int other) { return state(other).root == state(id).root; }) > 1;
      const bool dead_after = !state(id).constant && last_use(id) == step && root_of(id).buffer >= 0;
      if (dead_after && !same_memory_elsewhere && graph_.value(id).type.bytes() == bytes &&
          kernel.may_overwrite(static_cast<int>(i))) {
        return root_of(id).buffer;
      }
    }
    return -1;
  }

  Location locate(int id, const MemoryPlan& memory) {
    if (state(id).constant) {
      plan_.constants_.push_back(*state(id).constant);
      return {.in = Location::In::kConstant, .constant = plan_.constants_.back().raw()};
    }
    const ValueState& root = root_of(id);
    if (root.port >= 0) {
      return {.in = root.is_input ? Location::In::kInput : Location::In::kOutput,
              .offset = static_cast<std::size_t>(root.port)};
    }
    return {.in = Location::In::kArena, .offset = memory.offsets[static_cast<std::size_t>(root.buffer)]};
  }

  Plan& plan_;
  const Graph& graph_;
  const Workers& workers_;
  const std::shared_ptr<PackCache>& packs_;
  std::vector<ValueState> values_;
  std::vector<bool> needed_;
  std::vector<int> last_use_;
  std::vector<Lifetime> buffers_;
  std::vector<Pending> pending_;
  std::vector<std::pair<int, std::size_t>> copied_outputs_;
};

Plan::Plan(const Graph& graph, const Weights& weights, const Workers& workers, std::shared_ptr<PackCache> packs) {
  PlanBuilder(*this, graph, weights, workers, packs);
}

Plan::Context::Context(const Plan& plan)
    : arena_(DType::kU8, Shape{static_cast<std::int64_t>(plan.arena_bytes_)}),
      in_(plan.in_locations_.size()),
      out_(plan.out_locations_.size()) {}

const std::byte* Plan::resolve(const Location& location, std::span<const std::byte* const> inputs,
                               std::span<std::byte* const> outputs, const std::byte* arena) const {
  switch (location.in) {
    case Location::In::kArena:
      return arena + location.offset;
    case Location::In::kInput:
      return inputs[location.offset];
    case Location::In::kOutput:
      return outputs[location.offset];
    case Location::In::kConstant:
      return location.constant;
  }
  return nullptr;
}

void Plan::run(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, Context& context,
               const Workers& workers) const noexcept {
  std::byte* const arena = context.arena_.mutable_raw();
  for (std::size_t i = 0; i < in_locations_.size(); ++i) {
    context.in_[i] = resolve(in_locations_[i], inputs, outputs, arena);
  }
  for (std::size_t i = 0; i < out_locations_.size(); ++i) {
    context.out_[i] = const_cast<std::byte*>(resolve(out_locations_[i], inputs, outputs, arena));
  }
  workers.enter([&] {
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      const Wiring& wiring = wiring_[i];
      steps_[i].kernel->run({.in = std::span(context.in_).subspan(wiring.in.begin, wiring.in.count),
                             .out = std::span(context.out_).subspan(wiring.out.begin, wiring.out.count),
                             .scratch = arena + wiring.scratch,
                             .workers = workers});
    }
  });
  for (const Copy& copy : copies_)
    std::memcpy(outputs[copy.to], resolve(copy.from, inputs, outputs, arena), copy.bytes);
}

}  // namespace weft
