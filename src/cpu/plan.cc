#include "cpu/plan.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

namespace weft {

Plan::Context::Context(const Plan& plan)
    : arena_(DType::kU8, Shape{static_cast<std::int64_t>(plan.arena_bytes_)}), bases_(plan.operands_.size()) {}

// One run under way.
struct Plan::Run {
  const Plan& plan;
  std::span<const std::byte* const> inputs;
  std::span<std::byte* const> outputs;
  Context& context;
  const Workers& workers;
  Profile* profile;

  std::byte* arena() const { return context.arena_.mutable_raw(); }

  // Where the whole is; null for what lives in a tile. Inputs and constants are only read.
  std::byte* base(const Location& location) const {
    switch (location.in) {
      case Location::In::kArena:
        return arena() + location.offset;
      case Location::In::kInput:
        return const_cast<std::byte*>(inputs[location.offset]);
      case Location::In::kOutput:
        return outputs[location.offset];
      case Location::In::kConstant:
        return const_cast<std::byte*>(location.constant);
      case Location::In::kTile:
      case Location::In::kSlice:
        return nullptr;
    }
    return nullptr;
  }

  // Calls `body`, and books its time to `step` when somebody wants to know.
  template <class F>
  void timed(std::size_t step, F&& body) const {
    if (!profile) return body();
    const auto start = std::chrono::steady_clock::now();
    body();
    const auto spent = std::chrono::steady_clock::now() - start;
    (*profile)[step].fetch_add(std::chrono::nanoseconds(spent).count(), std::memory_order_relaxed);
  }

  // What a step that is not tiled reads and writes.
  KernelArgs whole_args(std::size_t step, std::byte* scratch) const {
    const Wiring& wiring = plan.wiring_[step];
    const std::span bases = std::span(context.bases_).subspan(wiring.first);
    const std::span<std::byte* const> out = bases.subspan(wiring.inputs, wiring.outputs);
    return {.in = {bases.data(), wiring.inputs}, .out = out, .scratch = scratch, .workers = workers};
  }

  void whole(const Stage& stage) const {
    timed(stage.first, [&] { plan.steps_[stage.first].kernel->run(whole_args(stage.first, arena() + stage.memory)); });
  }

  void parts(const Stage& stage) const {
    workers.parallel_for(static_cast<std::int64_t>(stage.parts.size()), 1, [&](std::int64_t i, std::int64_t) {
      const Part& part = stage.parts[static_cast<std::size_t>(i)];
      const PartedKernel& kernel = *plan.steps_[part.step].kernel->by_parts();
      timed(part.step,
            [&] { kernel.run_part(whole_args(part.step, arena() + stage.memory + part.scratch), part.number); });
    });
  }

  // Rows [begin, end) of a tile that starts at row `tile`, through one step.
  void rows(const Stage& stage, std::size_t step, std::byte* memory, std::int64_t tile, std::int64_t begin,
            std::int64_t end) const {
    const Wiring& wiring = plan.wiring_[step];
    std::array<std::byte*, 2 * kMaxOperands> at;
    for (std::size_t i = 0; i < wiring.inputs + wiring.outputs; ++i) {
      const Location& location = plan.operands_[wiring.first + i];
      if (location.in == Location::In::kSlice) {
        at[i] = memory + location.offset;
      } else if (location.in == Location::In::kTile) {
        at[i] = memory + location.offset + static_cast<std::size_t>(begin - tile) * location.row_bytes;
      } else {
        at[i] = context.bases_[wiring.first + i] + static_cast<std::size_t>(begin) * location.row_bytes;
      }
    }
    timed(step, [&] {
      plan.steps_[step].kernel->by_rows()->run_rows({.in = {at.data(), wiring.inputs},
                                                     .out = {at.data() + wiring.inputs, wiring.outputs},
                                                     .scratch = memory + stage.scratch,
                                                     .begin = begin,
                                                     .end = end});
    });
  }

  // Slices are too short for the hardware to foresee the next.
  void prefetch(std::size_t operand, std::int64_t begin, std::int64_t end) const {
    constexpr std::size_t kLine = 64;
    const std::size_t row = plan.operands_[operand].row_bytes;
    const std::byte* at = context.bases_[operand] + static_cast<std::size_t>(begin) * row;
    const std::byte* const stop = context.bases_[operand] + static_cast<std::size_t>(end) * row;
    for (; at < stop; at += kLine) __builtin_prefetch(at, 0, 3);
  }

  void tiles(const Stage& stage) const {
    workers.parallel_for(stage.rows, stage.tile_rows, [&](std::int64_t tile, std::int64_t tile_end) {
      std::byte* const memory =
          arena() + stage.memory + stage.memory_per_thread * static_cast<std::size_t>(workers.index());
      for (const Section& section : stage.sections) {
        for (std::int64_t begin = tile; begin < tile_end; begin += section.slice_rows) {
          const std::int64_t end = std::min(tile_end, begin + section.slice_rows);
          for (const std::size_t operand : section.streams)
            prefetch(operand, end, std::min(tile_end, end + section.slice_rows));
          for (std::size_t step = section.first; step <= section.last; ++step) {
            rows(stage, step, memory, tile, begin, end);
          }
        }
      }
    });
  }
};

void Plan::run(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, Context& context,
               const Workers& workers, Profile* profile) const noexcept {
  const Run run{*this, inputs, outputs, context, workers, profile};
  for (std::size_t i = 0; i < operands_.size(); ++i) context.bases_[i] = run.base(operands_[i]);
  workers.enter([&] {
    for (const Stage& stage : stages_) {
      if (stage.rows > 0) {
        run.tiles(stage);
      } else if (stage.parts.empty()) {
        run.whole(stage);
      } else {
        run.parts(stage);
      }
    }
  });
  for (const Copy& copy : copies_) std::memcpy(outputs[copy.to], run.base(copy.from), copy.bytes);
}

}  // namespace weft
