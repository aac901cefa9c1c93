// Operators on tiles: neighbouring entries of a batch, small enough for the cache of one core.
//
// A tile op does to some entries (indices of the first axis) what its node does to all of them, and the backward pass
// of that. It can be had for operators that treat entries alike and do not mix them, in f32 on the CPU; what is not of
// the batch (weights, mixes) is whole for each tile, and its gradient a sum over tiles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "graph/graph.h"
#include "torch/tile_kernels.h"

namespace weft::torch_engine {

/// What one tile op does: a node, or several at once.
struct TileNode {
  std::vector<const Graph::Node*> nodes;
  std::vector<int> inputs, outputs;
};

/// Most inputs, and outputs, of a tile node.
constexpr std::size_t kMaxTileOperands = 8;

/// What a tile op finds when it runs. Pointers are to the first entry of the tile, or to the whole of what is shared.
struct TileArgs {
  std::int64_t entries = 0;
  std::span<const float* const> in;  // backward: what it asks for, and what is shared
  std::span<const Target> out;       // backward: when it asks for it, to be read
  std::span<const float* const> g;   // backward: the gradients of what goes out
  std::span<const Target> gin;       // backward: of each input; sums over tiles for what is shared
  const std::byte* prepared = nullptr;
  std::byte* scratch = nullptr;
};

/// What a tile op is made for.
struct TileRequest {
  const Graph& graph;
  const TileNode& node;
  std::span<const bool> shared;  // by value
  std::int64_t entries = 1;      // of a tile
  std::int64_t rest = 0;         // of the last one, where it has fewer
  bool bf16 = false;             // products round what they multiply to bf16
  /// Values, and gradients of values, that only products read, and that come to them, or are left for them, in bf16.
  const std::set<int>& bf16_values;
  const std::set<int>& bf16_gradients;
};

class TileOp {
 public:
  virtual ~TileOp() = default;
  /// Whether backward() reads the elements of the unshared input `i`, given which inputs want a gradient.
  virtual bool backward_reads(std::size_t i, std::span<const bool> wanted) const = 0;
  virtual bool backward_reads_result() const { return false; }
  /// Whether all that backward() does is to hand on the gradient to inputs that are not shared.
  virtual bool hands_on_gradient() const { return false; }
  /// Whether the result is rather kept than computed again.
  virtual bool is_costly() const { return false; }
  /// What is made of the shared inputs once for all tiles.
  virtual std::size_t prepared_bytes() const { return 0; }
  virtual void prepare(std::span<const float* const> /*in*/, std::byte* /*prepared*/) const {}
  virtual std::size_t scratch_bytes() const { return 0; }
  virtual void forward(const TileArgs& args) const noexcept = 0;
  virtual void backward(const TileArgs& args) const noexcept = 0;
};

/// Whether there is a tile op for the node, its unshared operands having `batch` entries.
bool can_tile(const Graph& graph, const Graph::Node& node, std::span<const bool> shared, std::int64_t batch);

/// Nodes that can be tiled, in order, as tile nodes. `kept` are values that others need as well.
std::vector<TileNode> gather(std::span<const Graph::Node* const> nodes, std::span<const int> kept);

/// Whether the op can leave its results, or the gradients of its unshared inputs, in bf16.
bool can_write_bf16(const TileNode& node);
bool can_write_bf16_gradients(const TileNode& node);

std::unique_ptr<TileOp> make_tile_op(const TileRequest& request);

}  // namespace weft::torch_engine
