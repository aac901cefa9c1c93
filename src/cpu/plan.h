// A graph made ready for the CPU: constants folded, kernels prepared, chains of row-wise kernels tiled, memory planned.
// Made once for an input shape, run many times.
//
// Kernels whose rows do not depend on each other (RowKernel) run together in a stage: each thread takes a tile of rows
// through all of them, so that what lies between them stays in its cache and never exists for all rows. Kernels between
// products take the tile in slices that fit the first-level cache. A stage ends where somebody needs whole inputs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/threads.h"
#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

/// Parameters by name.
using Weights = std::map<std::string, Tensor, std::less<>>;

/// Of each value of the graph whether it is nothing but the weight of products or a table of rows: such parameters are
/// taken in f32, bf16 or f16 as they are stored, all others in f32.
std::vector<bool> taken_as_stored(const Graph& graph);
/// A weight as kernels take it: in f32, unless it is of those values and in bf16 or f16.
Tensor as_taken(const Tensor& weight, bool as_stored);

class Plan {
 public:
  struct Port {
    std::string name;
    TensorType type;
  };
  /// One kernel.
  struct Step {
    std::unique_ptr<Kernel> kernel;
    std::string operation;  // "linear"; "encode" for what weft puts before a product in bf16 or int8
    std::string place;      // "backbone.layers.0.att"
    std::int64_t macs = 0;
    std::int64_t bytes = 0;  // of inputs and outputs, weights included
    int stage = 0;           // steps of one stage run tile by tile
  };
  /// Nanoseconds of thread time per step, summed over runs.
  using Profile = std::vector<std::atomic<std::int64_t>>;

  /// Matrix products multiply in `precision`: kF32, kBF16 or kI8. Throws WeightError when a parameter is missing or
  /// mis-shaped, UnsupportedError when no kernel fits. Weights may be of any floating type.
  Plan(const Graph& graph, const Weights& weights, const Workers& workers, std::shared_ptr<PackCache> packs,
       DType precision = DType::kF32);

  std::span<const Port> inputs() const { return inputs_; }
  std::span<const Port> outputs() const { return outputs_; }
  std::span<const Step> steps() const { return steps_; }
  /// Bytes of the arena that one run needs.
  std::size_t arena_bytes() const { return arena_bytes_; }

  /// The memory of one run at a time. Runs that overlap in time need a context each.
  class Context {
   public:
    explicit Context(const Plan& plan);

   private:
    friend class Plan;
    Tensor arena_;
    std::vector<std::byte*> bases_;  // of all operands: where the whole is
  };

  /// Reads the inputs and writes the outputs, each as large as its port says. Allocates nothing of its own. `profile`
  /// has one entry per step, or is null.
  void run(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, Context& context,
           const Workers& workers, Profile* profile = nullptr) const noexcept;

 private:
  friend class PlanBuilder;

  // Where a value's bytes are: in the arena, in the memory of an input or output port, in a constant, or in the memory
  // of the thread that works on a tile: for all of the tile, or for the present slice of it.
  struct Location {
    enum class In : std::uint8_t { kArena, kInput, kOutput, kConstant, kTile, kSlice } in = In::kConstant;
    std::size_t offset = 0;  // in the arena or the tile's memory, or the number of the port
    const std::byte* constant = nullptr;
    std::size_t row_bytes = 0;  // from row to row of what a kernel reads or writes by rows, else 0
  };
  // Operands of a step: inputs, then outputs, as a range of operands_.
  struct Wiring {
    std::size_t first = 0;
    std::size_t inputs = 0;
    std::size_t outputs = 0;
  };
  // Neighbouring steps that take a tile whole (products) or slice by slice.
  struct Section {
    std::size_t first = 0;
    std::size_t last = 0;  // inclusive
    std::int64_t slice_rows = 0;
    std::vector<std::size_t> streams = {};  // operands that are read by rows from memory, not from the tile's
  };
  // A part of a parted kernel's step.
  struct Part {
    std::size_t step = 0;
    std::int64_t number = 0;
    std::size_t scratch = 0;  // in the stage's memory
  };
  // One step of a whole kernel, sections of row kernels, or the parts of parted kernels.
  struct Stage {
    std::size_t first = 0;
    std::size_t last = 0;   // inclusive
    std::int64_t rows = 0;  // 0: a whole kernel, or parts
    std::int64_t tile_rows = 0;
    std::vector<Section> sections;
    std::vector<Part> parts = {};
    std::size_t memory = 0;  // in the arena: scratch of a whole kernel or of all parts, or the tiles' of all threads
    std::size_t memory_per_thread = 0;
    std::size_t scratch = 0;  // within a thread's memory
  };
  // An output that no step writes in place: it repeats an input, a constant or another output.
  struct Copy {
    Location from;
    std::size_t to;
    std::size_t bytes;
  };
  struct Run;

  std::vector<Port> inputs_, outputs_;
  std::vector<Step> steps_;
  std::vector<Wiring> wiring_;
  std::vector<Location> operands_;
  std::vector<Stage> stages_;
  std::vector<Copy> copies_;
  std::vector<Tensor> constants_;  // keeps what the locations point to
  std::size_t arena_bytes_ = 0;
};

}  // namespace weft
