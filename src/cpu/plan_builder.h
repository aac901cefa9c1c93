// Turns a graph into a plan: fold, prepare kernels, group them into stages, find lifetimes, place buffers. Its chapters
// are files: plan_builder.cc, plan_steps.cc, plan_stages.cc, plan_places.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/memory_plan.h"
#include "cpu/plan.h"
#include "ops/elementwise/elementwise.h"

namespace weft {

class PlanBuilder {
 public:
  /// Fills `plan`, which is empty. Throws as Plan's constructor says.
  PlanBuilder(Plan& plan, const Graph& graph, const Weights& weights, const Workers& workers,
              const std::shared_ptr<PackCache>& packs, DType precision);

 private:
  using Location = Plan::Location;
  using In = Location::In;

  // An input of a step.
  struct Use {
    int step;
    int input;
  };

  // A value of the graph, or an encoded copy of one (their numbers follow).
  struct ValueState {
    std::optional<Tensor> constant;
    int root = -1;    // the value whose memory this one is (itself unless a view)
    int buffer = -1;  // of a root in the arena
    int port = -1;    // of a root that is an input or is written straight to an output
    bool is_input = false;
    bool sole_view = true;  // what it is a view of is wanted by nobody else
    std::size_t bytes = 0;
    // Of roots:
    int maker = -1;         // step that writes it
    std::vector<Use> uses;  // who reads it, in the order of steps
    std::optional<Location> local;
  };

  struct Operands {
    std::vector<int> inputs, outputs;
  };

  // A value's encoded rows, and for kI8 their scales.
  struct Encoded {
    int rows = -1;
    int scales = -1;
  };

  // Values of one stage (lifetimes in sections) or section (in steps), and the memory that they take: bytes per row.
  struct Locals {
    struct Local {
      int value;
      std::size_t slot;
    };
    std::vector<Local> values;
    std::vector<Lifetime> slots;
  };

  // Rows of a step's operands that it reads or writes by rows.
  static std::size_t row_bytes(std::size_t bytes, std::int64_t rows) { return bytes / static_cast<std::size_t>(rows); }

  ValueState& state(int id) { return values_[static_cast<std::size_t>(id)]; }
  ValueState& root_of(int id) { return state(state(id).root); }
  Plan::Step& step(int i) { return plan_.steps_[static_cast<std::size_t>(i)]; }
  Operands& operands(int i) { return operands_[static_cast<std::size_t>(i)]; }
  RowKernel* row_kernel(int i) { return step(i).kernel->by_rows(); }
  int stage_of(int i) { return step(i).stage; }
  bool is_sum(int i) { return step(i).operation == Add::kName; }
  Plan::Stage& stage(int i) { return plan_.stages_[static_cast<std::size_t>(i)]; }

  // What the graph brings and wants (plan_builder.cc).
  void bind_ports();
  void bind_weights(const Weights& weights);
  void mark_needed();
  void bind_outputs();

  // From nodes to steps (plan_steps.cc).
  void add(const Graph::Node& node);
  void fold(const Graph::Node& node, const Kernel& kernel);
  bool absorbed(const Graph::Node& node);
  Kernel* sole_maker(int id);
  bool wanted_once(int id);
  void alias(int id, int of);
  int new_value(std::size_t bytes);
  bool is_table(const Graph::Node& node, std::size_t i);
  int rounded(int id, DType stored);
  Encoded encoded(int id, DType encoding, const std::string& place);
  int new_scales(std::int64_t rows, Operands& maker);
  void append(std::unique_ptr<Kernel> kernel, std::string operation, std::string place, std::int64_t macs,
              Operands operands);
  void schedule();

  // From steps to stages (plan_stages.cc).
  void group();
  bool joins_last_stage(int i);
  bool makes_none_of(int i, int first);
  void cut_sections(Plan::Stage& s);
  void narrow();
  bool may_narrow(int id);
  void give_bf16(int id);

  // From values to places (plan_places.cc): first in the memory of tiles and slices …
  void place();
  void place_locals(Plan::Stage& s, int index);
  std::size_t place_parts(Plan::Stage& s);
  bool is_local(int id, std::size_t first, std::size_t last);
  Locals tile_locals(const Plan::Stage& s);
  Locals slice_locals(const Plan::Section& c);
  template <class F>
  Locals locals(std::size_t first, std::size_t last, std::int64_t rows, F&& wanted);
  std::optional<std::size_t> overwritten(int i, int output, const Locals& among, std::size_t bytes);
  bool may_overwrite(int i, std::size_t j);
  static std::size_t peak(const Locals& locals, std::int64_t rows);
  static MemoryPlan plan_rows(const Locals& locals, std::int64_t rows);
  std::size_t assign(const Locals& locals, std::int64_t rows, In in, std::size_t begin);
  std::size_t section_row_bytes(const Plan::Section& c);
  // … then in the arena and at ports, where steps are wired to them.
  void give_buffer(int i, int id, bool first_output);
  int buffer_to_take_over(int i, int id, bool first_output);
  bool only_read_by_rows(const ValueState& value, const Plan::Stage& s);
  void wire(int i, const MemoryPlan& memory);
  void find_streams(Plan::Section& section);
  Location locate(int id, const MemoryPlan& memory);

  Plan& plan_;
  const Graph& graph_;
  const Workers& workers_;
  const std::shared_ptr<PackCache>& packs_;
  DType precision_;
  std::deque<ValueState> values_;  // kernels may point to constants
  std::vector<bool> needed_;
  std::vector<int> consumers_;      // of each value of the graph: nodes and outputs that want it
  std::vector<Operands> operands_;  // of each step
  std::map<std::tuple<int, DType, std::int64_t>, Encoded> encoded_;
  std::vector<Lifetime> buffers_;           // in the arena; lifetimes in stages
  std::vector<std::size_t> stage_buffers_;  // of each stage's memory
  std::set<int> taken_;                     // values whose buffers others have taken over
  std::vector<std::pair<int, std::size_t>> copied_outputs_;
};

}  // namespace weft
