// From values to places: in the memory of tiles and slices, whose heights are chosen here, in the arena, or at a port.
#include <algorithm>

#include "cpu/plan_builder.h"

namespace weft {
namespace {

// What a tile's intermediate results may take of a core's second-level cache (1 MiB and more where AVX-512 is; the
// rest is left to weights), and a slice's of the first.
constexpr std::size_t kTileBytes = 768 * 1024;
constexpr std::size_t kSliceBytes = 32 * 1024;
// Products are at their best rate from some 32 rows on, and no better beyond these.
constexpr std::int64_t kMostTileRows = 256;
constexpr std::int64_t kFewestTileRows = 32;

}  // namespace

void PlanBuilder::place() {
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
void PlanBuilder::place_locals(Plan::Stage& s, int index) {
  std::size_t bytes = 0;
  if (step(static_cast<int>(s.first)).kernel->by_parts()) {
    bytes = place_parts(s);
  } else if (s.rows == 0) {
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
      section.slice_rows = high ? s.tile_rows
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

// Lists the parts of a stage's steps; returns the bytes of their scratch.
std::size_t PlanBuilder::place_parts(Plan::Stage& s) {
  std::size_t bytes = 0;
  for (std::size_t i = s.first; i <= s.last; ++i) {
    PartedKernel& kernel = *step(static_cast<int>(i)).kernel->by_parts();
    kernel.prepare();
    for (std::int64_t part = 0; part < kernel.parts(); ++part) {
      s.parts.push_back({.step = i, .number = part, .scratch = bytes});
      bytes += kernel.part_scratch_bytes();
    }
  }
  return bytes;
}

// Whether a value lives and dies within these steps.
bool PlanBuilder::is_local(int id, std::size_t first, std::size_t last) {
  const ValueState& value = root_of(id);
  return value.port < 0 && value.maker >= static_cast<int>(first) && !value.uses.empty() &&
         value.uses.back().step <= static_cast<int>(last);
}

PlanBuilder::Locals PlanBuilder::tile_locals(const Plan::Stage& s) {
  Locals found = locals(s.first, s.last, s.rows, [&](int id) {
    return std::ranges::none_of(s.sections, [&](const auto& c) { return is_local(id, c.first, c.last); });
  });
  // A section runs all its steps for one slice before the next: what one of them reads of a later slice must still be
  // there when another has written an earlier one. So tile-high values live in whole sections.
  const auto section_of = [&](int i) {
    const auto holds = [i](const Plan::Section& c) { return i <= static_cast<int>(c.last); };
    return static_cast<int>(std::ranges::find_if(s.sections, holds) - s.sections.begin());
  };
  for (Lifetime& lifetime : found.slots) {
    lifetime.first = section_of(lifetime.first);
    lifetime.last = section_of(lifetime.last);
  }
  return found;
}

PlanBuilder::Locals PlanBuilder::slice_locals(const Plan::Section& c) {
  return locals(c.first, c.last, row_kernel(static_cast<int>(c.first))->rows(), [](int) { return true; });
}

template <class F>
PlanBuilder::Locals PlanBuilder::locals(std::size_t first, std::size_t last, std::int64_t rows, F&& wanted) {
  Locals found;
  for (std::size_t i = first; i <= last; ++i) {
    for (const int id : operands(static_cast<int>(i)).outputs) {
      if (!is_local(id, first, last) || !wanted(id)) continue;
      const std::size_t bytes = row_bytes(state(id).bytes, rows);
      const int end = state(id).uses.back().step;
      const std::optional<std::size_t> shared = overwritten(static_cast<int>(i), id, found, bytes);
      if (shared) {
        found.slots[*shared].last = end;
      } else {
        found.slots.push_back({bytes, static_cast<int>(i), end});
      }
      found.values.push_back({id, shared.value_or(found.slots.size() - 1)});
    }
  }
  return found;
}

// Whose slot output 0 of a step may take over.
std::optional<std::size_t> PlanBuilder::overwritten(int i, int output, const Locals& among, std::size_t bytes) {
  const Operands& all = operands(i);
  if (all.outputs[0] != output) return std::nullopt;
  for (std::size_t j = 0; j < all.inputs.size(); ++j) {
    if (!may_overwrite(i, j)) continue;
    const auto found = std::ranges::find(among.values, state(all.inputs[j]).root, &Locals::Local::value);
    if (found == among.values.end()) continue;
    if (row_bytes(state(found->value).bytes, row_kernel(i)->rows()) == bytes) return found->slot;
  }
  return std::nullopt;
}

// Whether nobody reads input `j` of step `i` after it, and the kernel may write over it.
bool PlanBuilder::may_overwrite(int i, std::size_t j) {
  const std::vector<int>& inputs = operands(i).inputs;
  const int root = state(inputs[j]).root;
  const bool once = std::ranges::count_if(inputs, [&](int id) { return state(id).root == root; }) == 1;
  return once && !state(inputs[j]).constant && state(root).uses.back().step == i && state(root).port < 0 &&
         step(i).kernel->may_overwrite(static_cast<int>(j));
}

// Bytes of the memory plan of these locals for tiles of so many rows.
std::size_t PlanBuilder::peak(const Locals& locals, std::int64_t rows) { return plan_rows(locals, rows).bytes; }

MemoryPlan PlanBuilder::plan_rows(const Locals& locals, std::int64_t rows) {
  std::vector<Lifetime> scaled = locals.slots;
  for (Lifetime& lifetime : scaled) lifetime.bytes *= static_cast<std::size_t>(rows);
  return plan_memory(scaled);
}

// Places locals from `begin` on; returns the end.
std::size_t PlanBuilder::assign(const Locals& locals, std::int64_t rows, In in, std::size_t begin) {
  const MemoryPlan memory = plan_rows(locals, rows);
  for (const Locals::Local& local : locals.values) {
    state(local.value).local = Location{.in = in, .offset = begin + memory.offsets[local.slot]};
  }
  return begin + memory.bytes;
}

// Bytes per row of everything that a section reads and writes by rows, its inner values aside.
std::size_t PlanBuilder::section_row_bytes(const Plan::Section& c) {
  std::size_t bytes = 0;
  std::vector<int> seen;
  const std::int64_t rows = row_kernel(static_cast<int>(c.first))->rows();
  for (std::size_t i = c.first; i <= c.last; ++i) {
    const Operands& all = operands(static_cast<int>(i));
    const auto count = [&](int id) {
      const int root = state(id).root;
      if (state(id).constant || is_local(id, c.first, c.last) || std::ranges::find(seen, root) != seen.end()) return;
      seen.push_back(root);
      bytes += row_bytes(state(root).bytes, rows);
    };
    for (const int id : all.inputs) count(id);
    for (const int id : all.outputs) count(id);
  }
  return bytes;
}

// Output `id` of step `i` gets a buffer in the arena, unless it is local or a port: one that is free from then on, or
// a new one.
void PlanBuilder::give_buffer(int i, int id, bool first_output) {
  ValueState& value = state(id);
  if (value.port >= 0 || value.local) return;
  const int last = value.uses.empty() ? stage_of(i) : stage_of(value.uses.back().step);
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
int PlanBuilder::buffer_to_take_over(int i, int id, bool first_output) {
  const Plan::Stage& s = stage(stage_of(i));
  for (int user = static_cast<int>(s.first); user <= i; ++user) {
    const std::vector<int>& inputs = operands(user).inputs;
    for (std::size_t j = 0; j < inputs.size(); ++j) {
      ValueState& old = root_of(inputs[j]);
      if (state(inputs[j]).constant || old.buffer < 0 || old.bytes != state(id).bytes) continue;
      const int last = old.uses.back().step;
      const bool dead = last < i ? s.rows > 0 : user == i && last == i && first_output && may_overwrite(i, j);
      if (!dead || taken_.contains(state(inputs[j]).root) || !only_read_by_rows(old, s)) continue;
      taken_.insert(state(inputs[j]).root);
      return old.buffer;
    }
  }
  return -1;
}

// Whether all uses within a tiled stage are by rows. (A whole kernel's own word in may_overwrite is enough.)
bool PlanBuilder::only_read_by_rows(const ValueState& value, const Plan::Stage& s) {
  if (s.rows == 0) return true;
  if (value.maker >= static_cast<int>(s.first)) return false;  // made in this very stage: its lifetime is the stage's
  return std::ranges::all_of(value.uses, [&](const Use& use) {
    return use.step < static_cast<int>(s.first) || row_kernel(use.step)->reads_by_rows(use.input);
  });
}

void PlanBuilder::wire(int i, const MemoryPlan& memory) {
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

void PlanBuilder::find_streams(Plan::Section& section) {
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

Plan::Location PlanBuilder::locate(int id, const MemoryPlan& memory) {
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

}  // namespace weft
