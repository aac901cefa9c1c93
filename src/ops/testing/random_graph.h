// Small graphs made up at random from all operators, for engines to be compared on.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft::testing {

struct RandomGraph {
  std::unique_ptr<Graph> graph;
  std::map<std::string, Tensor, std::less<>> weights;  // f32
  std::vector<Tensor> inputs;                          // f32
};

/// The same graph for the same seed: 3 … 14 operations on values of some thousand elements at most, of which every one
/// is used or an output. Elements are of the order of 1: products of more than four values are avoided.
RandomGraph random_graph(std::uint64_t seed);

}  // namespace weft::testing
