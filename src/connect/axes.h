// What the axes of a graph's values stand for: found by following them from the input through the operations.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "graph/graph.h"

namespace weft {

/// kBoth: positions and channels in one axis, positions outermost, as [B,T,C] flattened to [B,T·C].
enum class Axis : std::uint8_t { kBatch, kPosition, kChannel, kBoth };

/// One for each axis of a value; empty for what does not depend on the input.
using Axes = std::vector<Axis>;

/// Of every value. An input "image" is [B,C,H,W]; every other input has its channels last: [B,T,C], [B,H,W,C].
std::vector<Axes> axes_of(const Graph& graph);

/// Where the elements of a value of batch 1 are: the one of position p and channel c at position[p] + channel[c].
struct ElementIndex {
  std::vector<std::int64_t> position;
  std::vector<std::int64_t> channel;

  std::int64_t positions() const { return static_cast<std::int64_t>(position.size()); }
  std::int64_t channels() const { return static_cast<std::int64_t>(channel.size()); }
};

/// `axes` must not have kBoth.
ElementIndex index_elements(const Shape& shape, const Axes& axes);

/// How positions lie on the picture: `prefix` that have no place on it (class tokens), then height · width row by row.
struct Grid {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t prefix = 0;

  bool operator==(const Grid&) const = default;
};

/// From the extents of the position axes where there are two (or four: rows and columns within rows and columns of
/// blocks); for one axis of tokens the grid of that many that has the proportions of the graph's input. Nothing where
/// there is none.
std::optional<Grid> grid_of(const Graph& graph, const std::vector<Axes>& axes, int value);

}  // namespace weft
