// Where a network connects positions: the operations that are linear in one of their inputs, once the others have the
// values that a picture gives them, and that carry what is at one position to others.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "connect/axes.h"
#include "graph/graph.h"

namespace weft {

/// A part of a graph that is a linear map from one value to another: one such operation, or several in a row with
/// nothing but layout between them (the two directions of a decomposed attention, the two factors of a product).
struct Mixing {
  struct Step {
    int node;           // of the graph
    std::size_t input;  // the one of its inputs that comes from the step before
  };

  std::string kind;         // "bi_wkv"; "window_attention, window_attention" for two in a row
  std::string place;        // "backbone.layers.0.att"
  std::vector<Step> steps;  // in the graph's order
  int from = 0;             // the value that it is linear in
  int to = 0;               // its result
  /// The grid that the operation says its tokens are on.
  std::optional<Grid> grid = std::nullopt;
};

/// All of them, in the graph's order, a composed one behind those that it is made of. `axes` are axes_of(graph).
std::vector<Mixing> find_mixings(const Graph& graph, const std::vector<Axes>& axes);

}  // namespace weft
