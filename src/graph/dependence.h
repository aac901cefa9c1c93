#pragma once

#include <vector>

#include "graph/graph.h"

namespace weft {

/// Of each value, by its id, whether it depends on an input; what does not is the same in every run, and an engine may
/// compute it once.
std::vector<bool> depends_on_inputs(const Graph& graph);

}  // namespace weft
