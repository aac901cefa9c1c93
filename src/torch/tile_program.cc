#include "torch/tile_program.h"

#include <torch/torch.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "ops/ops.h"

namespace weft::torch_engine {
namespace {

using Where = Place::Where;

constexpr std::size_t kNoLine = std::numeric_limits<std::size_t>::max();
// Of the widest value of a tile, so that a few of its size are in the second-level cache; and rows of a tile: with
// fewer, products are slow, and more make nothing faster.
constexpr std::int64_t kTileElements = 96 * 1024;
constexpr std::int64_t kLeastRows = 64;
constexpr std::int64_t kMostRows = 256;
// Tiles that are summed up one after the other are a thread's at once. With several such groups for each thread none is
// waited for long that has to share its core; and each has sums to be cleared and added.
constexpr std::int64_t kGroupsOfThread = 4;
constexpr std::int64_t kSumsAtOnce = 16 * 1024;
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kAlignedFloats = kAlignment / sizeof(float);

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
std::size_t aligned_floats(std::size_t floats) {
  return (floats + kAlignedFloats - 1) / kAlignedFloats * kAlignedFloats;
}

// Uninitialised memory, aligned to 64, from libtorch, which may have some at hand.
template <class T>
class Workspace {
 public:
  explicit Workspace(std::size_t count)
      : bytes_(at::empty({static_cast<std::int64_t>(count * sizeof(T))}, at::kByte)) {}
  T* get() const { return reinterpret_cast<T*>(bytes_.data_ptr<std::uint8_t>()); }

 private:
  at::Tensor bytes_;
};

// Calls f(Place&) for all places of an instruction.
template <class F>
void for_each_place(Instruction& instruction, F&& f) {
  for (std::vector<Place>* places : {&instruction.in, &instruction.out, &instruction.g}) {
    for (Place& place : *places) f(place);
  }
  for (Instruction::Gradient& gradient : instruction.gin) f(gradient.place);
}

// A value's or gradient's memory in an arena, while some instructions are at work.
struct Buffer {
  std::size_t floats;
  std::size_t first = kNoLine, last = 0;  // instructions
  std::size_t at = 0;
};

// Puts buffers, told by their numbers in places, where they have room while they live.
void allocate(TileProgram& program, std::vector<Buffer>& buffers) {
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    for_each_place(program.instructions[i], [&](const Place& place) {
      if (place.where != Where::kArena) return;
      Buffer& buffer = buffers[place.at];
      buffer.first = std::min(buffer.first, i);
      buffer.last = i;
    });
  }
  std::vector<Buffer*> order;
  for (Buffer& buffer : buffers) order.push_back(&buffer);
  std::ranges::stable_sort(order, std::greater(), &Buffer::floats);
  std::vector<const Buffer*> placed;  // by address
  for (Buffer* const buffer : order) {
    if (buffer->first == kNoLine) continue;
    for (const Buffer* other : placed) {
      const bool together = other->first <= buffer->last && buffer->first <= other->last;
      const bool overlaps = other->at < buffer->at + buffer->floats && buffer->at < other->at + other->floats;
      if (together && overlaps) buffer->at = other->at + other->floats;
    }
    placed.insert(std::ranges::upper_bound(placed, buffer->at, {}, &Buffer::at), buffer);
    program.arena_floats = std::max(program.arena_floats, buffer->at + buffer->floats);
  }
  for (Instruction& instruction : program.instructions) {
    for_each_place(instruction, [&](Place& place) {
      if (place.where == Where::kArena) place.at = buffers[place.at].at;
    });
  }
}

}  // namespace

class TilePlanBuilder {
 public:
  TilePlanBuilder(TilePlan& plan, const Graph& graph, const RegionNodes& region, std::span<const bool> shared,
                  std::span<const bool> wanted)
      : plan_(plan), graph_(graph), region_(region), shared_(shared) {
    for (const int id : region.inputs) add_line(id);
    for (const int id : region.outputs) add_line(id);
    for (std::size_t i = 0; i < region.inputs.size(); ++i) needs_[region.inputs[i]] = wanted[i];
    nodes_ = gather(region.nodes, region.outputs);
    for (std::size_t op = 0; op < nodes_.size(); ++op) {
      bool needed = false;
      for (const int id : nodes_[op].inputs) {
        needed = needed || needs_.at(id);
        readers_[id].push_back(op);
      }
      for (const int id : nodes_[op].outputs) {
        producer_[id] = op;
        needs_[id] = needed;
      }
    }
  }

  void build() {
    choose_entries();
    if (plan_.options_.bf16) find_bf16();
    make_ops();
    build_backward();
    build_forward();
    plan_.read_backward_ = std::make_unique<bool[]>(plan_.table_.size());
    for (const auto& [line, read] : read_) plan_.read_backward_[line] = read;
    for (TileProgram* program : {&plan_.forward_, &plan_.backward_}) find_ops(*program);
  }

 private:
  std::int64_t elements(int id) const {  // of an entry
    return graph_.value(id).type.shape.elements() / plan_.options_.batch;
  }
  bool is_shared(int id) const { return shared_[index(id)]; }
  bool is_product(std::size_t op) const { return nodes_[op].nodes[0]->operation.as<Linear>() != nullptr; }

  std::size_t add_line(int id) {
    const std::int64_t whole = graph_.value(id).type.shape.elements();
    plan_.table_.push_back({id, is_shared(id), is_shared(id) ? whole : elements(id)});
    return lines_[id] = plan_.table_.size() - 1;
  }

  void choose_entries() {
    std::int64_t rows = 1;
    std::int64_t columns = 1;
    for (const Graph::Node* node : region_.nodes) {
      const Shape& shape = graph_.value(node->outputs[0]).type.shape;
      rows = std::max(rows, elements(node->outputs[0]) / shape[-1]);
      columns = std::max(columns, shape[-1]);
    }
    const std::int64_t batch = plan_.options_.batch;
    const std::int64_t most = std::max<std::int64_t>(1, batch / plan_.options_.threads);
    std::int64_t entries =
        std::clamp<std::int64_t>(std::clamp(kTileElements / columns, kLeastRows, kMostRows) / rows, 1, most);
    // Equal tiles where that costs little.
    for (std::int64_t fewer = entries; 2 * fewer > entries; --fewer) {
      if (batch % fewer == 0) {
        entries = fewer;
        break;
      }
    }
    plan_.entries_ = entries;
  }

  // What only products read is left for them in bf16, where it is not kept.
  void find_bf16() {
    for (std::size_t op = 0; op < nodes_.size(); ++op) {
      const auto for_products = [&](int id) {
        const std::vector<std::size_t>& readers = readers_[id];
        return !is_output(id) && !readers.empty() &&
               std::ranges::all_of(readers, [&](std::size_t reader) { return is_product(reader); });
      };
      // All results of a node, or none.
      if (can_write_bf16(nodes_[op]) && std::ranges::all_of(nodes_[op].outputs, for_products)) {
        bf16_values_.insert(nodes_[op].outputs.begin(), nodes_[op].outputs.end());
      }
      const int id = nodes_[op].outputs[0];
      if (!is_product(op) || nodes_[op].inputs.size() > 2 || is_output(id)) continue;
      if (readers_[id].size() == 1 && can_write_bf16_gradients(nodes_[readers_[id][0]])) bf16_gradients_.insert(id);
    }
  }

  void make_ops() {
    for (const TileNode& node : nodes_) {
      auto op = make_tile_op({.graph = graph_,
                              .node = node,
                              .shared = shared_,
                              .entries = plan_.entries_,
                              .rest = plan_.options_.batch % plan_.entries_,
                              .bf16 = plan_.options_.bf16,
                              .bf16_values = bf16_values_,
                              .bf16_gradients = bf16_gradients_});
      plan_.prepared_at_.push_back(plan_.prepared_bytes_);
      plan_.prepared_bytes_ += (op->prepared_bytes() + kAlignment - 1) / kAlignment * kAlignment;
      plan_.scratch_bytes_ =
          std::max(plan_.scratch_bytes_, (op->scratch_bytes() + kAlignment - 1) / kAlignment * kAlignment);
      std::vector<std::size_t>& lines = plan_.op_inputs_.emplace_back();
      for (const int id : node.inputs) lines.push_back(is_shared(id) ? lines_.at(id) : kNoLine);
      plan_.ops_.push_back(std::move(op));
    }
  }

  // --- one program -------------------------------------------------------------------------------------------------

  Place new_buffer(int id, bool is_bf16) {
    const std::size_t count = index(elements(id) * plan_.entries_);
    buffers_.push_back({.floats = aligned_floats(is_bf16 ? (count + 1) / 2 : count)});
    return {Where::kArena, buffers_.size() - 1, is_bf16};
  }

  // Where a value is in the program being built; of one in the arena, where it will be.
  Place place_of(int id) {
    if (const auto line = lines_.find(id); line != lines_.end()) {
      return {is_shared(id) ? Where::kShared : Where::kTensor, line->second};
    }
    const auto [value, is_new] = values_.try_emplace(id);
    if (is_new) value->second = new_buffer(id, bf16_values_.contains(id));
    return value->second;
  }

  Instruction forward_of(std::size_t op) {
    Instruction instruction{.kind = Instruction::Kind::kForward, .op = op, .in = {}, .out = {}, .g = {}, .gin = {}};
    for (const int id : nodes_[op].inputs) instruction.in.push_back(place_of(id));
    for (const int id : nodes_[op].outputs) instruction.out.push_back(place_of(id));
    return instruction;
  }

  // The same once more. Results of the region that the op makes besides what is wanted were handed out, and perhaps not
  // kept: they go nowhere.
  Instruction again(std::size_t op) {
    Instruction instruction = forward_of(op);
    for (std::size_t i = 0; i < instruction.out.size(); ++i) {
      if (instruction.out[i].where != Where::kArena) instruction.out[i] = new_buffer(nodes_[op].outputs[i], false);
    }
    return instruction;
  }

  static void find_ops(TileProgram& program) {
    std::set<std::size_t> ops;
    for (const Instruction& instruction : program.instructions) {
      if (instruction.kind != Instruction::Kind::kCopy) ops.insert(instruction.op);
    }
    program.ops.assign(ops.begin(), ops.end());
  }

  void build_forward() {
    values_.clear();
    buffers_.clear();
    for (std::size_t op = 0; op < nodes_.size(); ++op) {
      plan_.forward_.instructions.push_back(forward_of(op));
    }
    allocate(plan_.forward_, buffers_);
  }

  // --- backward ----------------------------------------------------------------------------------------------------

  bool is_output(int id) const { return std::ranges::find(region_.outputs, id) != region_.outputs.end(); }

  void build_backward() {
    plan_.makes_gradient_.assign(region_.inputs.size(), false);
    for (std::size_t op = nodes_.size(); op-- > 0;) {
      if (needs_.at(nodes_[op].outputs[0])) add_backward(op);
    }
    for (std::size_t i = 0; i < region_.inputs.size(); ++i) {
      plan_.makes_gradient_[i] = gradients_.contains(region_.inputs[i]);
    }
    for (Instruction& instruction : plan_.backward_.instructions) {
      for_each_place(instruction, [&](Place& place) {  // behind the values, whose number is known by now
        if (place.where == Where::kTensor && place.at >= kGradients) place.at += plan_.table_.size() - kGradients;
      });
    }
    allocate(plan_.backward_, buffers_);
  }

  void add_backward(std::size_t op) {
    const TileNode& node = nodes_[op];
    const TileOp& tile_op = *plan_.ops_[op];
    Instruction backward{.kind = Instruction::Kind::kBackward, .op = op, .in = {}, .out = {}, .g = {}, .gin = {}};
    for (const int id : node.outputs) {
      const auto g = gradients_.find(id);
      if (g == gradients_.end() && !is_output(id)) return;  // cannot be: what nobody needs is no part of a region
      backward.g.push_back(g != gradients_.end() ? g->second : gradient_line(id));
    }
    const auto wanted = std::make_unique<bool[]>(node.inputs.size());
    for (std::size_t i = 0; i < node.inputs.size(); ++i) wanted[i] = needs_.at(node.inputs[i]);
    const std::span<const bool> wants(wanted.get(), node.inputs.size());
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const int id = node.inputs[i];
      const bool reads = is_shared(id) || tile_op.backward_reads(i, wants);
      backward.in.push_back(reads ? available(id) : Place());
    }
    if (tile_op.backward_reads_result()) backward.out.push_back(available(node.outputs[0]));
    bool works = false;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const int id = node.inputs[i];
      Instruction::Gradient& to = backward.gin.emplace_back();
      if (!wanted[i]) continue;
      if (tile_op.hands_on_gradient() && producer_.contains(id) && readers_.at(id).size() == 1 && !is_output(id)) {
        gradients_[id] = backward.g[0];  // nobody else adds to it, and all that g is made of has been added
        continue;
      }
      to = share_of_gradient(id);
      works = true;
    }
    if (works) plan_.backward_.instructions.push_back(std::move(backward));
  }

  // A value that the backward program reads; computed again where it is not kept.
  Place available(int id) {
    if (!lines_.contains(id) && !values_.contains(id)) {
      const std::size_t op = producer_.at(id);
      if (plan_.ops_[op]->is_costly()) {
        plan_.kept_.push_back(id);
        add_line(id);
      } else {
        for (const int input : nodes_[op].inputs) available(input);
        plan_.backward_.instructions.push_back(again(op));
      }
    }
    if (const auto line = lines_.find(id); line != lines_.end()) read_[line->second] = true;
    return place_of(id);
  }

  Place gradient_line(int id) const { return {Where::kTensor, kGradients + lines_.at(id)}; }

  // Where one more share of the gradient of a value goes.
  Instruction::Gradient share_of_gradient(int id) {
    const auto known = gradients_.find(id);
    if (known != gradients_.end()) return {known->second, true};
    if (is_shared(id)) {
      plan_.sums_.push_back({lines_.at(id), plan_.sum_floats_});
      gradients_[id] = {Where::kSum, plan_.sum_floats_};
      plan_.sum_floats_ += aligned_floats(index(graph_.value(id).type.shape.elements()));
      return {gradients_[id], true};
    }
    if (!producer_.contains(id)) return {gradients_[id] = gradient_line(id), false};
    const Place buffer = gradients_[id] = new_buffer(id, bf16_gradients_.contains(id));
    if (!is_output(id)) return {buffer, false};
    Instruction copy{.kind = Instruction::Kind::kCopy,
                     .op = 0,
                     .in = {},
                     .out = {},
                     .g = {gradient_line(id)},
                     .gin = {{buffer, false}},
                     .elements = elements(id)};
    plan_.backward_.instructions.push_back(std::move(copy));
    return {buffer, true};
  }

  static constexpr std::size_t kGradients = std::size_t{1} << 32U;  // added to lines of gradients meanwhile

  TilePlan& plan_;
  const Graph& graph_;
  const RegionNodes& region_;
  std::span<const bool> shared_;
  std::vector<TileNode> nodes_;
  std::map<int, bool> needs_;  // a gradient
  std::map<int, std::size_t> producer_;
  std::map<int, std::vector<std::size_t>> readers_;
  std::set<int> bf16_values_, bf16_gradients_;
  std::map<int, std::size_t> lines_;
  std::map<std::size_t, bool> read_;
  std::map<int, Place> values_;  // of the program being built
  std::map<int, Place> gradients_;
  std::vector<Buffer> buffers_;
};

TilePlan::TilePlan(const Graph& graph, const RegionNodes& region, std::span<const bool> shared,
                   std::span<const bool> wanted, const Options& options)
    : options_(options) {
  TilePlanBuilder(*this, graph, region, shared, wanted).build();
}

namespace {

// Where the places of one thread are while it runs one tile.
struct Bases {
  std::span<float* const> table;
  std::span<const std::int64_t> strides;  // floats of an entry, by line
  float* arena;
  float* sums;
  std::int64_t entry;

  float* operator()(const Place& place) const {
    switch (place.where) {
      case Where::kArena:
        return arena + place.at;
      case Where::kTensor:
        return table[place.at] + entry * strides[place.at % strides.size()];
      case Where::kShared:
        return table[place.at];
      case Where::kSum:
        return sums + place.at;
      case Where::kNone:
        break;
    }
    return nullptr;
  }
};

}  // namespace

void TilePlan::run(const TileProgram& program, std::span<float* const> table, const Workers& workers) const {
  const std::int64_t tiles = (options_.batch + entries_ - 1) / entries_;
  const std::int64_t threads = workers.count();
  const bool sums_up = &program == &backward_ && sum_floats_ > 0;
  const std::int64_t groups = sums_up ? std::min(tiles, threads == 1 ? 1 : threads * kGroupsOfThread) : tiles;
  std::vector<std::int64_t> strides;
  for (const Line& line : table_) strides.push_back(line.elements);

  const Workspace<std::byte> prepared(prepared_bytes_);
  // Only what this program runs: what the others are made of may not have been kept.
  workers.parallel_for(static_cast<std::int64_t>(program.ops.size()), 1, [&](std::int64_t i, std::int64_t) {
    const std::size_t op = program.ops[static_cast<std::size_t>(i)];
    const float* shared[kMaxTileOperands];
    const std::vector<std::size_t>& lines = op_inputs_[op];
    for (std::size_t j = 0; j < lines.size(); ++j) shared[j] = lines[j] == kNoLine ? nullptr : table[lines[j]];
    ops_[op]->prepare({shared, lines.size()}, prepared.get() + prepared_at_[op]);
  });

  const std::size_t sums_of_group = sums_up ? sum_floats_ : 0;
  const Workspace<float> sums(sums_of_group * index(groups));
  const std::size_t arena_bytes = aligned_floats(program.arena_floats) * sizeof(float);
  const Workspace<std::byte> memory((arena_bytes + scratch_bytes_) * index(threads));
  const auto run_tile = [&](Bases& at, std::byte* scratch) {
    const float* in[kMaxTileOperands];
    const float* g[kMaxTileOperands];
    Target out[kMaxTileOperands];
    Target gin[kMaxTileOperands];
    const std::int64_t entries = std::min(entries_, options_.batch - at.entry);
    for (const Instruction& instruction : program.instructions) {
      for (std::size_t i = 0; i < instruction.in.size(); ++i) in[i] = at(instruction.in[i]);
      for (std::size_t i = 0; i < instruction.g.size(); ++i) g[i] = at(instruction.g[i]);
      for (std::size_t i = 0; i < instruction.out.size(); ++i) {
        out[i] = {at(instruction.out[i]), false, instruction.out[i].is_bf16};
      }
      for (std::size_t i = 0; i < instruction.gin.size(); ++i) {
        const Instruction::Gradient& gradient = instruction.gin[i];
        gin[i] = {at(gradient.place), gradient.adds, gradient.place.is_bf16};
      }
      if (instruction.kind == Instruction::Kind::kCopy) {
        const Operand from{g[0]};
        map(Map::kCopy, {&from, 1}, gin[0], entries, index(instruction.elements));
        continue;
      }
      const TileArgs args{.entries = entries,
                          .in = {in, instruction.in.size()},
                          .out = {out, instruction.out.size()},
                          .g = {g, instruction.g.size()},
                          .gin = {gin, instruction.gin.size()},
                          .prepared = prepared.get() + prepared_at_[instruction.op],
                          .scratch = scratch};
      if (instruction.kind == Instruction::Kind::kForward) {
        ops_[instruction.op]->forward(args);
      } else {
        ops_[instruction.op]->backward(args);
      }
    }
  };
  // Each group of tiles has sums of its own, so that these do not depend on who runs when.
  workers.parallel_for(groups, 1, [&](std::int64_t group, std::int64_t) {
    std::byte* const own = memory.get() + (arena_bytes + scratch_bytes_) * index(workers.index());
    Bases at{.table = table,
             .strides = strides,
             .arena = reinterpret_cast<float*>(own),
             .sums = sums.get() + sums_of_group * index(group),
             .entry = 0};
    std::fill_n(at.sums, sums_of_group, 0.0F);
    for (std::int64_t tile = group * tiles / groups; tile < (group + 1) * tiles / groups; ++tile) {
      at.entry = tile * entries_;
      run_tile(at, own + arena_bytes);
    }
  });
  if (!sums_up) return;
  for (const Sum& sum : sums_) {
    workers.parallel_for(table_[sum.line].elements, kSumsAtOnce, [&](std::int64_t begin, std::int64_t end) {
      float* const to = table[table_.size() + sum.line] + begin;
      for (std::int64_t group = 0; group < groups; ++group) {
        const Operand share{sums.get() + sums_of_group * index(group) + sum.at + begin};
        map(Map::kCopy, {&share, 1}, {to, group > 0}, 1, index(end - begin));
      }
    });
  }
}

void TilePlan::forward(std::span<float* const> table, const Workers& workers) const { run(forward_, table, workers); }
void TilePlan::backward(std::span<float* const> table, const Workers& workers) const { run(backward_, table, workers); }

}  // namespace weft::torch_engine
