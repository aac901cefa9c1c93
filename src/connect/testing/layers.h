// One small layer of each kind that mixes positions, with random weights.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cpu/plan.h"
#include "graph/graph.h"

namespace weft::testing {

struct SmallLayer {
  std::string name;
  std::unique_ptr<Graph> graph;  // of x [1,6,8,12], output "y"
  Weights weights;
};

/// The layer of this name. Parameters are made up from `seed`.
SmallLayer small_layer(const std::string& name, std::uint64_t seed = 1);
/// The names of all.
std::vector<std::string> small_layer_names();

}  // namespace weft::testing
