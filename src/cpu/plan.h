// A graph made ready for the CPU: constants folded, kernels prepared, memory planned. Made once for an input shape, run
// many times.
#pragma once

#include <cstddef>
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

class Plan {
 public:
  struct Port {
    std::string name;
    TensorType type;
  };
  /// One kernel call.
  struct Step {
    std::unique_ptr<const Kernel> kernel;
    std::string operation;  // "linear"
    std::string place;      // "backbone.layers.0.att"
    std::int64_t macs = 0;
  };

  /// Throws WeightError when a parameter is missing or mis-shaped, UnsupportedError when no kernel fits. Weights of
  /// other floating types are converted to f32.
  Plan(const Graph& graph, const Weights& weights, const Workers& workers, std::shared_ptr<PackCache> packs);

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
    std::vector<const std::byte*> in_;  // the inputs of all steps, one after the other
    std::vector<std::byte*> out_;
  };

  /// Reads the inputs and writes the outputs, each as large as its port says. Allocates nothing of its own.
  void run(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, Context& context,
           const Workers& workers) const noexcept;

 private:
  friend class PlanBuilder;

  // Where a value's bytes are: in the arena, in the memory of an input or output port, or in a constant.
  struct Location {
    enum class In { kArena, kInput, kOutput, kConstant } in = In::kConstant;
    std::size_t offset = 0;  // in the arena, or the number of the port
    const std::byte* constant = nullptr;
  };
  struct Slice {
    std::size_t begin = 0;
    std::size_t count = 0;
  };
  struct Wiring {
    Slice in, out;  // into in_ and out_ of the context
    std::size_t scratch = 0;
  };
  // An output that no step writes to in place: it repeats an input, a constant or another output.
  struct Copy {
    Location from;
    std::size_t to;
    std::size_t bytes;
  };

  const std::byte* resolve(const Location& location, std::span<const std::byte* const> inputs,
                           std::span<std::byte* const> outputs, const std::byte* arena) const;

  std::vector<Port> inputs_, outputs_;
  std::vector<Step> steps_;
  std::vector<Wiring> wiring_;
  std::vector<Location> in_locations_, out_locations_;
  std::vector<Copy> copies_;
  std::vector<Tensor> constants_;  // keeps what the locations point to
  std::size_t arena_bytes_ = 0;
};

}  // namespace weft
