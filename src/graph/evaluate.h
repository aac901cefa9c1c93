// The slow and certain engine: every operation by its double-precision reference.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft {

/// Outputs of the graph, f64, in their order. `inputs` and `weights` may have any floating type. Throws WeightError for
/// a parameter without weights and ShapeError for a tensor of another shape than declared.
std::vector<Tensor> evaluate_reference(const Graph& graph, const std::map<std::string, Tensor, std::less<>>& weights,
                                       std::span<const Tensor> inputs);

}  // namespace weft
