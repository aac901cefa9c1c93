// A region of a graph as two programs for tiles: one forward, one backward, which computes again what was not kept.
//
// What is kept for the backward program is what goes into the region, what comes out, and results of costly operators
// (products); all else lives in the cache, in an arena of its own for each thread, for one tile.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/threads.h"
#include "torch/tile_ops.h"

namespace weft::torch_engine {

/// Where a value, or a gradient, is.
struct Place {
  enum class Where : std::uint8_t {
    kNone,
    kArena,   // in the thread's memory, from `at` floats on
    kTensor,  // a tensor of the whole batch: the table's line `at`
    kShared,  // a tensor that is not of the batch
    kSum,     // in the thread's sums of gradients, from `at` floats on
  };
  Where where = Where::kNone;
  std::size_t at = 0;
  bool is_bf16 = false;  // kArena only
  explicit operator bool() const { return where != Where::kNone; }
};

struct Instruction {
  enum class Kind : std::uint8_t { kForward, kBackward, kCopy };  // kCopy: g[0] to gin[0]
  struct Gradient {
    Place place;
    bool adds = false;
  };
  Kind kind = Kind::kForward;
  std::size_t op = 0;
  std::vector<Place> in, out, g;
  std::vector<Gradient> gin;
  std::int64_t elements = 0;  // of kCopy, in an entry
};

struct TileProgram {
  std::vector<Instruction> instructions;
  std::vector<std::size_t> ops;  // that are in these, each once
  std::size_t arena_floats = 0;  // for one tile
};

/// The part of a graph that is run so. `nodes` are in order; ids are those of values.
struct RegionNodes {
  std::vector<const Graph::Node*> nodes;
  std::vector<int> inputs;   // made elsewhere, each once
  std::vector<int> outputs;  // needed elsewhere
};

/// The programs for a region, given which of its inputs want a gradient (none: there is no backward program). The table
/// of tensors that run() wants: values [inputs, outputs, kept], then, backward, gradients of all these, in this order;
/// a null pointer where there is none.
class TilePlan {
 public:
  struct Options {
    std::int64_t batch = 1;
    int threads = 1;  // that tiles should be enough for
    bool bf16 = false;
  };
  TilePlan(const Graph& graph, const RegionNodes& region, std::span<const bool> shared, std::span<const bool> wanted,
           const Options& options);

  std::span<const int> kept() const { return kept_; }
  /// By table line of a value: whether the backward program reads it.
  std::span<const bool> read_backward() const { return {read_backward_.get(), table_.size()}; }
  /// By input: whether the backward program makes its gradient. Not where no output depends on it.
  bool makes_gradient(std::size_t input) const { return makes_gradient_[input]; }

  void forward(std::span<float* const> table, const Workers& workers) const;
  void backward(std::span<float* const> table, const Workers& workers) const;

 private:
  friend class TilePlanBuilder;
  struct Line {
    int value = 0;
    bool shared = false;
    std::int64_t elements = 0;  // of an entry, or in all when shared
  };
  struct Sum {
    std::size_t line, at;
  };

  void run(const TileProgram& program, std::span<float* const> table, const Workers& workers) const;

  Options options_;
  std::int64_t entries_ = 1;  // of a tile
  std::vector<std::unique_ptr<TileOp>> ops_;
  std::vector<std::vector<std::size_t>> op_inputs_;  // table lines of shared inputs (else unused)
  std::vector<std::size_t> prepared_at_;
  std::size_t prepared_bytes_ = 0, scratch_bytes_ = 0;
  std::vector<Line> table_;
  std::vector<int> kept_;
  std::unique_ptr<bool[]> read_backward_;
  std::vector<bool> makes_gradient_;
  std::vector<Sum> sums_;
  std::size_t sum_floats_ = 0;
  TileProgram forward_, backward_;
};

}  // namespace weft::torch_engine
