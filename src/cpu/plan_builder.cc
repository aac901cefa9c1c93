// Turns a graph into a plan: fold, prepare kernels, group them into stages, find lifetimes, place buffers.
#include <algorithm>
#include <map>
#include <optional>

#include "core/format.h"
#include "cpu/memory_plan.h"
#include "cpu/plan.h"
#include "kernel/encode.h"
#include "ops/elementwise/elementwise.h"
#include "ops/kernels.h"

namespace weft {
namespace {

// What a tile's intermediate results may take of a core's second-level cache (1 MiB and more where AVX-512 is; the
// rest is left to weights), and a slice's of the first.
constexpr std::size_t kTileBytes = 768 * 1024;
constexpr std::size_t kSliceBytes = 32 * 1024;
// Products are at their best rate from some 32 rows on, and no better beyond these.
constexpr std::int64_t kMostTileRows = 256;
constexpr std::int64_t kFewestTileRows = 32;

constexpr std::string_view kEncode = "encode";

}  // namespace

class PlanBuilder {
 public:
  PlanBuilder(Plan& plan, const Graph& graph, const Weights& weights, const Workers& workers,
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

 private:
  using Location = Plan::Location;
  using In = Location::In;

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
    std::vector<int> uses;  // steps that read it, in order
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

  // Rows of a step's operands that it reads or writes by rows.
  static std::size_t row_bytes(std::size_t bytes, std::int64_t rows) { return bytes / static_cast<std::size_t>(rows); }

  ValueState& state(int id) { return values_[static_cast<std::size_t>(id)]; }
  ValueState& root_of(int id) { return state(state(id).root); }
  Plan::Step& step(int i) { return plan_.steps_[static_cast<std::size_t>(i)]; }
  Operands& operands(int i) { return operands_[static_cast<std::size_t>(i)]; }
  RowKernel* row_kernel(int i) { return step(i).kernel->by_rows(); }
  int stage_of(int i) { return step(i).stage; }
  Plan::Stage& stage(int i) { return plan_.stages_[static_cast<std::size_t>(i)]; }

  void bind_ports() {
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

  // ---- from nodes to steps ----

  void add(const Graph::Node& node) {
    const bool foldable = std::ranges::all_of(node.inputs, [&](int id) { return state(id).constant.has_value(); });
    if (node.operation.is_view()) {
      const int out = node.outputs[0];
      if (foldable) {
        state(out).constant = state(node.inputs[0]).constant->reshaped(graph_.value(out).type.shape);
      } else {
        alias(out, node.inputs[0]);
      }
      return;
    }
    if (!foldable && absorbed(node)) return;
    std::vector<TensorType> in, out;
    std::vector<const Tensor*> constants;
    for (const int id : node.inputs) {
      in.push_back(graph_.value(id).type);
      constants.push_back(state(id).constant ? &*state(id).constant : nullptr);
    }
    for (const int id : node.outputs) out.push_back(graph_.value(id).type);
    const KernelRequest request{.in = in,
                                .out = out,
                                .constants = constants,
                                .threads = workers_.count(),
                                .packs = packs_.get(),
                                .precision = foldable ? DType::kF32 : precision_};
    if (foldable) return fold(node, *make_lone_kernel(node.operation, request));
    std::unique_ptr<Kernel> kernel = make_kernel(node.operation, request);

    std::vector<int> inputs = node.inputs;
    int scales = -1;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (constants[i] && is_worth_rounding(node, i) && kernel->reads_bf16(static_cast<int>(i))) {
        inputs[i] = rounded(inputs[i]);
        kernel->give_bf16(static_cast<int>(i));
        continue;
      }
      const DType encoding = kernel->encoding(static_cast<int>(i));
      if (encoding == DType::kF32) continue;
      const Encoded copy = encoded(inputs[i], encoding, node.place);
      inputs[i] = copy.rows;
      scales = copy.scales;
    }
    std::unique_ptr<RowKernel> decoder = kernel->make_decoder();
    const int result = node.outputs[0];
    const int raw = decoder ? new_value(state(result).bytes) : result;
    std::vector<int> outputs = node.outputs;
    outputs[0] = raw;
    append(std::move(kernel), std::string(node.operation.name()), node.place, node.operation.macs(in),
           {std::move(inputs), std::move(outputs)});
    if (decoder) append(std::move(decoder), "decode", node.place, 0, {{raw, scales}, {result}});
  }

  // Whether input `i` of a node, a constant, is as large as its result: the positional embedding of a large picture.
  bool is_worth_rounding(const Graph::Node& node, std::size_t i) {
    const Shape& shape = graph_.value(node.inputs[i]).type.shape;
    return precision_ != DType::kF32 && row_count(shape) > 1 &&
           shape.elements() == graph_.value(node.outputs[0]).type.shape.elements();
  }

  // A constant in bf16.
  int rounded(int id) {
    const int copy = new_value(state(id).bytes / 2);
    state(copy).constant = state(id).constant->to(DType::kBF16);
    return copy;
  }

  // The maker of the node's input, when nobody else wants that input; else null.
  Kernel* sole_maker(int id) {
    const int maker = root_of(id).maker;
    return wanted_once(id) && maker >= 0 ? step(maker).kernel.get() : nullptr;
  }

  // Whether the kernel before an activation does it in passing: then both values are one.
  bool absorbed(const Graph::Node& node) {
    const Activation activation = activation_of(node.operation);
    if (activation == Activation::kNone) return false;
    Kernel* const maker = sole_maker(node.inputs[0]);
    if (!maker || !maker->absorb(activation)) return false;
    alias(node.outputs[0], node.inputs[0]);
    return true;
  }

  // `id` is another name for the memory of `of`.
  void alias(int id, int of) {
    state(id).root = state(of).root;
    state(id).sole_view = wanted_once(of);
  }
  bool wanted_once(int id) { return state(id).sole_view && consumers_[static_cast<std::size_t>(id)] == 1; }

  int new_value(std::size_t bytes) {
    const int id = static_cast<int>(values_.size());
    ValueState& value = values_.emplace_back();
    value.root = id;
    value.bytes = bytes;
    return id;
  }

  // The encoded form of a value: made so by its maker if nobody else wants it otherwise, else by a step of its own,
  // unless there is one already.
  Encoded encoded(int id, DType encoding, const std::string& place) {
    const Shape& shape = graph_.value(id).type.shape;
    const std::int64_t rows = row_count(shape);
    const std::size_t bytes = size_of(encoding) * static_cast<std::size_t>(shape.elements());
    Kernel* const maker = sole_maker(id);
    const bool same_rows = maker && maker->by_rows() && maker->by_rows()->rows() == rows;  // no view cuts them anew
    if (same_rows && maker->encode_output(encoding)) {
      root_of(id).bytes = bytes;
      Encoded own{state(id).root};
      if (encoding == DType::kI8) own.scales = new_scales(rows, operands(root_of(id).maker));
      return own;
    }
    const std::tuple key{state(id).root, encoding, shape[-1]};
    if (const auto found = encoded_.find(key); found != encoded_.end()) return found->second;
    Encoded copy{new_value(bytes)};
    Operands operands{{id}, {copy.rows}};
    if (encoding == DType::kI8) copy.scales = new_scales(rows, operands);
    encoded_.emplace(key, copy);
    append(make_encoder(encoding, rows, shape[-1]), std::string(kEncode), place, 0, std::move(operands));
    return copy;
  }

  // One RowScale per row, as the next output of these operands.
  int new_scales(std::int64_t rows, Operands& maker) {
    const int id = new_value(sizeof(RowScale) * static_cast<std::size_t>(rows));
    state(id).maker = state(maker.outputs[0]).maker;
    maker.outputs.push_back(id);
    return id;
  }

  void append(std::unique_ptr<Kernel> kernel, std::string operation, std::string place, std::int64_t macs,
              Operands operands) {
    const int index = static_cast<int>(plan_.steps_.size());
    for (const int id : operands.outputs) state(id).maker = index;
    const bool fits = operands.inputs.size() <= kMaxOperands && operands.outputs.size() <= kMaxOperands;
    require<UnsupportedError>(fits || !kernel->by_rows(), operation, "the CPU engine takes {} inputs at most",
                              kMaxOperands);
    plan_.steps_.push_back({std::move(kernel), std::move(operation), std::move(place), macs, 0, 0});
    operands_.push_back(std::move(operands));
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

  // Encodes each value as soon as it is there: what is read while it is hot need not be kept. Then numbers the steps.
  void schedule() {
    std::vector<std::size_t> order;
    std::vector<std::vector<std::size_t>> after(plan_.steps_.size());  // encoding steps, behind what they encode
    for (std::size_t i = 0; i < plan_.steps_.size(); ++i) {
      const int maker = plan_.steps_[i].operation == kEncode ? root_of(operands_[i].inputs[0]).maker : -1;
      if (maker >= 0) after[static_cast<std::size_t>(maker)].push_back(i);
    }
    std::vector<bool> placed(plan_.steps_.size());
    for (std::size_t i = 0; i < plan_.steps_.size(); ++i) {
      if (placed[i]) continue;
      order.push_back(i);
      for (const std::size_t encoder : after[i]) {
        order.push_back(encoder);
        placed[encoder] = true;
      }
    }
    std::vector<Plan::Step> steps;
    std::vector<Operands> operands;
    for (ValueState& value : values_) value.uses.clear();
    for (const std::size_t old : order) {
      const int index = static_cast<int>(steps.size());
      for (const int id : operands_[old].inputs) root_of(id).uses.push_back(index);
      for (const int id : operands_[old].outputs) state(id).maker = index;
      steps.push_back(std::move(plan_.steps_[old]));
      operands.push_back(std::move(operands_[old]));
    }
    plan_.steps_ = std::move(steps);
    operands_ = std::move(operands);
  }

  void bind_outputs() {
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

  // ---- from steps to stages ----

  void group() {
    for (int i = 0; i < static_cast<int>(plan_.steps_.size()); ++i) {
      const std::size_t index = static_cast<std::size_t>(i);
      if (joins_last_stage(i)) {
        plan_.stages_.back().last = index;
      } else {
        RowKernel* const rows = row_kernel(i);
        plan_.stages_.push_back({.first = index, .last = index, .rows = rows ? rows->rows() : 0, .sections = {}});
      }
      step(i).stage = static_cast<int>(plan_.stages_.size()) - 1;
    }
    for (Plan::Stage& s : plan_.stages_) {
      if (s.rows > 0) cut_sections(s);
    }
  }

  bool joins_last_stage(int i) {
    RowKernel* const rows = row_kernel(i);
    if (!rows || plan_.stages_.empty() || plan_.stages_.back().rows != rows->rows() || rows->rows() == 0) return false;
    const auto first = static_cast<int>(plan_.stages_.back().first);
    const std::vector<int>& inputs = operands(i).inputs;
    for (std::size_t j = 0; j < inputs.size(); ++j) {
      if (!rows->reads_by_rows(static_cast<int>(j)) && root_of(inputs[j]).maker >= first) return false;
    }
    return true;
  }

  void cut_sections(Plan::Stage& s) {
    for (std::size_t i = s.first; i <= s.last; ++i) {
      const bool high = row_kernel(static_cast<int>(i))->wants_high_tiles();
      const bool starts = i == s.first || high || row_kernel(static_cast<int>(i) - 1)->wants_high_tiles();
      if (starts) {
        s.sections.push_back({.first = i, .last = i, .slice_rows = 0});
      } else {
        s.sections.back().last = i;
      }
    }
  }

  // What is in memory between two stages is rounded to bf16 where its maker and all its readers can: half the bytes to
  // write, to keep and to read. (Norms cannot, so that the residual stream stays in f32.)
  void narrow() {
    for (int i = 0; i < static_cast<int>(plan_.steps_.size()); ++i) {
      const int id = operands(i).outputs[0];
      const ValueState& value = root_of(id);
      const bool crosses = std::ranges::any_of(value.uses, [&](int user) { return stage_of(user) != stage_of(i); });
      if (crosses && may_narrow(id) && step(i).kernel->encode_output(DType::kBF16)) give_bf16(id);
    }
  }

  template <class F>
  void for_each_use(int id, F&& use) {
    for (const int user : root_of(id).uses) {
      for (std::size_t j = 0; j < operands(user).inputs.size(); ++j) {
        if (state(operands(user).inputs[j]).root == state(id).root) use(user, static_cast<int>(j));
      }
    }
  }

  bool may_narrow(int id) {
    bool may = root_of(id).port < 0;
    for_each_use(id, [&](int user, int input) {
      const Kernel& kernel = *step(user).kernel;
      may = may && kernel.reads_bf16(input) && (!kernel.moves() || may_narrow(operands(user).outputs[0]));
    });
    return may;
  }

  void give_bf16(int id) {
    root_of(id).bytes /= 2;
    for_each_use(id, [&](int user, int input) {
      step(user).kernel->give_bf16(input);
      if (step(user).kernel->moves()) give_bf16(operands(user).outputs[0]);
    });
  }

  // ---- from values to places ----

  void place() {
    for (std::size_t i = 0; i < plan_.stages_.size(); ++i) place_locals(plan_.stages_[i], static_cast<int>(i));
    for (int i = 0; i < static_cast<int>(plan_.steps_.size()); ++i) {
      for (std::size_t j = 0; j < operands(i).outputs.size(); ++j) give_buffer(i, operands(i).outputs[j], j == 0);
    }
    const MemoryPlan memory = plan_memory(buffers_);
    plan_.arena_bytes_ = memory.bytes;
    for (std::size_t i = 0; i < plan_.stages_.size(); ++i) plan_.stages_[i].memory = memory.offsets[stage_buffers_[i]];
    for (int i = 0; i < static_cast<int>(plan_.steps_.size()); ++i) wire(i, memory);
    for (Plan::Stage& s : plan_.stages_) {
      for (Plan::Section& section : s.sections) find_streams(section);
    }
    for (const auto& [value, port] : copied_outputs_) {
      plan_.copies_.push_back({locate(value, memory), port, graph_.value(value).type.bytes()});
    }
  }

  // Values that live and die within one stage get places in the memory of a tile, those within one section in that of
  // a slice. Then the heights of tiles and slices are known, and the kernels can prepare for them.
  void place_locals(Plan::Stage& s, int index) {
    std::size_t bytes = 0;
    if (s.rows == 0) {
      bytes = step(static_cast<int>(s.first)).kernel->scratch_bytes();
    } else {
      const Locals tiled = tile_locals(s);
      s.tile_rows =
          choose_tile_rows(s.rows,
                           std::clamp(static_cast<std::int64_t>(kTileBytes / std::max<std::size_t>(peak(tiled, 1), 1)),
                                      kFewestTileRows, kMostTileRows),
                           workers_.count());
      const std::size_t slices = assign(tiled, s.tile_rows, In::kTile, 0);  // where their memory begins
      std::size_t next = slices;
      for (Plan::Section& section : s.sections) {
        const Locals sliced = slice_locals(section);
        const bool high = row_kernel(static_cast<int>(section.first))->wants_high_tiles();
        const std::size_t per_row = std::max(peak(sliced, 1), section_row_bytes(section));
        section.slice_rows =
            high ? s.tile_rows
                 : std::clamp(static_cast<std::int64_t>(kSliceBytes / std::max<std::size_t>(per_row, 1)),
                              std::int64_t{1}, s.tile_rows);
        next = std::max(next, assign(sliced, section.slice_rows, In::kSlice, slices));
      }
      s.scratch = next;
      std::size_t scratch = 0;
      for (std::size_t i = s.first; i <= s.last; ++i) {
        RowKernel& kernel = *row_kernel(static_cast<int>(i));
        kernel.set_tile_rows(s.tile_rows);
        scratch = std::max(scratch, kernel.row_scratch_bytes());
      }
      constexpr std::size_t kLine = 64;
      s.memory_per_thread = (next + scratch + kLine - 1) / kLine * kLine;
      bytes = s.memory_per_thread * static_cast<std::size_t>(workers_.count());
    }
    stage_buffers_.push_back(buffers_.size());
    buffers_.push_back({bytes, index, index});
  }

  // Values of one stage (lifetimes in sections) or section (in steps), sizes per row.
  struct Locals {
    std::vector<int> values;
    std::vector<Lifetime> lifetimes;
    std::vector<int> shares;  // the local whose memory it takes over, or −1
  };

  bool is_local(int id, std::size_t first, std::size_t last) {
    const ValueState& value = root_of(id);
    return value.port < 0 && value.maker >= static_cast<int>(first) && !value.uses.empty() &&
           value.uses.back() <= static_cast<int>(last);
  }

  Locals tile_locals(const Plan::Stage& s) {
    Locals found = locals(s.first, s.last, s.rows, [&](int id) {
      return std::ranges::none_of(s.sections, [&](const auto& c) { return is_local(id, c.first, c.last); });
    });
    // A section runs all its steps for one slice before the next: what one of them reads of a later slice must still be
    // there when another has written an earlier one. So tile-high values live in whole sections.
    const auto section_of = [&](int i) {
      const auto holds = [i](const Plan::Section& c) { return i <= static_cast<int>(c.last); };
      return static_cast<int>(std::ranges::find_if(s.sections, holds) - s.sections.begin());
    };
    for (Lifetime& lifetime : found.lifetimes) {
      lifetime.first = section_of(lifetime.first);
      lifetime.last = section_of(lifetime.last);
    }
    return found;
  }
  Locals slice_locals(const Plan::Section& c) {
    return locals(c.first, c.last, row_kernel(static_cast<int>(c.first))->rows(), [](int) { return true; });
  }

  template <class F>
  Locals locals(std::size_t first, std::size_t last, std::int64_t rows, F&& wanted) {
    Locals found;
    for (std::size_t i = first; i <= last; ++i) {
      for (const int id : operands(static_cast<int>(i)).outputs) {
        if (!is_local(id, first, last) || !wanted(id)) continue;
        const std::size_t bytes = row_bytes(state(id).bytes, rows);
        const int end = state(id).uses.back();
        const int shared = overwritten(static_cast<int>(i), id, found, bytes);
        if (shared >= 0) found.lifetimes[static_cast<std::size_t>(shared)].last = end;
        found.values.push_back(id);
        found.shares.push_back(shared);
        found.lifetimes.push_back({shared >= 0 ? 0 : bytes, static_cast<int>(i), end});
      }
    }
    return found;
  }

  // Which of these locals output 0 of a step may overwrite, or −1.
  int overwritten(int i, int output, const Locals& among, std::size_t bytes) {
    const Operands& all = operands(i);
    if (all.outputs[0] != output) return -1;
    for (std::size_t j = 0; j < all.inputs.size(); ++j) {
      if (!may_overwrite(i, j)) continue;
      const auto found = std::ranges::find(among.values, state(all.inputs[j]).root);
      if (found == among.values.end()) continue;
      auto local = static_cast<int>(found - among.values.begin());
      if (row_bytes(state(*found).bytes, row_kernel(i)->rows()) != bytes) continue;
      while (among.shares[static_cast<std::size_t>(local)] >= 0) local = among.shares[static_cast<std::size_t>(local)];
      return local;
    }
    return -1;
  }

  // Whether nobody reads input `j` of step `i` after it, and the kernel may write over it.
  bool may_overwrite(int i, std::size_t j) {
    const std::vector<int>& inputs = operands(i).inputs;
    const int root = state(inputs[j]).root;
    const bool once = std::ranges::count_if(inputs, [&](int id) { return state(id).root == root; }) == 1;
    return once && !state(inputs[j]).constant && state(root).uses.back() == i && state(root).port < 0 &&
           step(i).kernel->may_overwrite(static_cast<int>(j));
  }

  // Bytes of the memory plan of these locals for tiles of so many rows.
  static std::size_t peak(const Locals& locals, std::int64_t rows) { return plan_rows(locals, rows).bytes; }
  static MemoryPlan plan_rows(const Locals& locals, std::int64_t rows) {
    std::vector<Lifetime> scaled = locals.lifetimes;
    for (Lifetime& lifetime : scaled) lifetime.bytes *= static_cast<std::size_t>(rows);
    return plan_memory(scaled);
  }

  // Places locals from `begin` on; returns the end.
  std::size_t assign(const Locals& locals, std::int64_t rows, In in, std::size_t begin) {
    const MemoryPlan memory = plan_rows(locals, rows);
    for (std::size_t i = 0; i < locals.values.size(); ++i) {
      std::size_t owner = i;
      while (locals.shares[owner] >= 0) owner = static_cast<std::size_t>(locals.shares[owner]);
      state(locals.values[i]).local = Location{.in = in, .offset = begin + memory.offsets[owner]};
    }
    return begin + memory.bytes;
  }

  // Bytes per row of everything that a section reads and writes by rows, its inner values aside.
  std::size_t section_row_bytes(const Plan::Section& c) {
    std::size_t bytes = 0;
    std::vector<int> seen;
    const std::int64_t rows = row_kernel(static_cast<int>(c.first))->rows();
    for (std::size_t i = c.first; i <= c.last; ++i) {
      const Operands& all = operands(static_cast<int>(i));
      const auto count = [&](int id) {
        const int root = state(id).root;
        if (state(id).constant || is_local(id, c.first, c.last) || std::ranges::find(seen, root) != seen.end()) return;
        seen.push_back(root);
        bytes += row_bytes(state(id).bytes, rows);
      };
      for (const int id : all.inputs) count(id);
      for (const int id : all.outputs) count(id);
    }
    return bytes;
  }

  // Output `id` of step `i` gets a buffer in the arena, unless it is local or a port: one that is free from then on, or
  // a new one.
  void give_buffer(int i, int id, bool first_output) {
    ValueState& value = state(id);
    if (value.port >= 0 || value.local) return;
    const int last = value.uses.empty() ? stage_of(i) : stage_of(value.uses.back());
    value.buffer = buffer_to_take_over(i, id, first_output);
    if (value.buffer < 0) {
      value.buffer = static_cast<int>(buffers_.size());
      buffers_.push_back({value.bytes, stage_of(i), last});
    }
    Lifetime& buffer = buffers_[static_cast<std::size_t>(value.buffer)];
    buffer.last = std::max(buffer.last, last);
  }

  // The buffer of a value that is read for the last time in this stage, so early that the present output, row by row,
  // may take its place; or −1. Tiles run at the same time, so every use in this stage must be by rows.
  int buffer_to_take_over(int i, int id, bool first_output) {
    const Plan::Stage& s = stage(stage_of(i));
    for (int user = static_cast<int>(s.first); user <= i; ++user) {
      const std::vector<int>& inputs = operands(user).inputs;
      for (std::size_t j = 0; j < inputs.size(); ++j) {
        ValueState& old = root_of(inputs[j]);
        if (state(inputs[j]).constant || old.buffer < 0 || old.bytes != state(id).bytes) continue;
        const int last = old.uses.back();
        const bool dead = last < i ? s.rows > 0 : user == i && last == i && first_output && may_overwrite(i, j);
        if (!dead || taken_.contains(state(inputs[j]).root) || !only_read_by_rows(old, s)) continue;
        taken_.insert({state(inputs[j]).root, id});
        return old.buffer;
      }
    }
    return -1;
  }

  // Whether all uses within a tiled stage are by rows. (A whole kernel's own word in may_overwrite is enough.)
  bool only_read_by_rows(const ValueState& value, const Plan::Stage& s) {
    if (s.rows == 0) return true;
    if (value.maker >= static_cast<int>(s.first)) return false;  // made in this very stage: its lifetime is the stage's
    return std::ranges::all_of(value.uses, [&](int user) {
      if (user < static_cast<int>(s.first)) return true;
      const std::vector<int>& inputs = operands(user).inputs;
      for (std::size_t j = 0; j < inputs.size(); ++j) {
        if (&root_of(inputs[j]) == &value && !row_kernel(user)->reads_by_rows(static_cast<int>(j))) return false;
      }
      return true;
    });
  }

  void wire(int i, const MemoryPlan& memory) {
    const Operands& all = operands(i);
    Plan::Wiring wiring{plan_.operands_.size(), all.inputs.size(), all.outputs.size()};
    RowKernel* const rows = stage(stage_of(i)).rows > 0 ? row_kernel(i) : nullptr;
    for (const int id : all.inputs) step(i).bytes += static_cast<std::int64_t>(root_of(id).bytes);
    for (const int id : all.outputs) step(i).bytes += static_cast<std::int64_t>(root_of(id).bytes);
    for (std::size_t j = 0; j < all.inputs.size(); ++j) {
      Location location = locate(all.inputs[j], memory);
      if (rows && rows->reads_by_rows(static_cast<int>(j))) {
        location.row_bytes = row_bytes(root_of(all.inputs[j]).bytes, rows->rows());
      }
      plan_.operands_.push_back(location);
    }
    for (const int id : all.outputs) {
      Location location = locate(id, memory);
      if (rows) location.row_bytes = row_bytes(state(id).bytes, rows->rows());
      plan_.operands_.push_back(location);
    }
    plan_.wiring_.push_back(wiring);
  }

  void find_streams(Plan::Section& section) {
    if (row_kernel(static_cast<int>(section.first))->wants_high_tiles()) return;
    std::vector<int> seen;
    for (std::size_t i = section.first; i <= section.last; ++i) {
      const Operands& all = operands(static_cast<int>(i));
      for (std::size_t j = 0; j < all.inputs.size(); ++j) {
        const std::size_t operand = plan_.wiring_[i].first + j;
        const int root = state(all.inputs[j]).root;
        const bool in_memory = !state(all.inputs[j]).constant && !state(root).local;
        const bool made_here = state(root).maker >= static_cast<int>(section.first);
        if (!in_memory || made_here || plan_.operands_[operand].row_bytes == 0) continue;
        if (std::ranges::find(seen, root) != seen.end()) continue;
        seen.push_back(root);
        section.streams.push_back(operand);
      }
    }
  }

  Location locate(int id, const MemoryPlan& memory) {
    if (state(id).constant) {
      plan_.constants_.push_back(*state(id).constant);
      return {.in = In::kConstant, .constant = plan_.constants_.back().raw()};
    }
    const ValueState& root = root_of(id);
    if (root.local) return *root.local;
    if (root.port >= 0) {
      return {.in = root.is_input ? In::kInput : In::kOutput, .offset = static_cast<std::size_t>(root.port)};
    }
    return {.in = In::kArena, .offset = memory.offsets[static_cast<std::size_t>(root.buffer)]};
  }

  Plan& plan_;
  const Graph& graph_;
  const Workers& workers_;
  const std::shared_ptr<PackCache>& packs_;
  DType precision_;
  std::vector<ValueState> values_;
  std::vector<bool> needed_;
  std::vector<int> consumers_;      // of each value of the graph: nodes and outputs that want it
  std::vector<Operands> operands_;  // of each step
  std::map<std::tuple<int, DType, std::int64_t>, Encoded> encoded_;
  std::vector<Lifetime> buffers_;           // in the arena; lifetimes in stages
  std::vector<std::size_t> stage_buffers_;  // of each stage's memory
  std::map<int, int> taken_;                // values whose buffers others have taken over, and by whom
  std::vector<std::pair<int, std::size_t>> copied_outputs_;
};

Plan::Plan(const Graph& graph, const Weights& weights, const Workers& workers, std::shared_ptr<PackCache> packs,
           DType precision) {
  PlanBuilder(*this, graph, weights, workers, packs, precision);
}

}  // namespace weft
