#include "graph/dependence.h"

#include <algorithm>

namespace weft {

std::vector<bool> depends_on_inputs(const Graph& graph) {
  std::vector<bool> depends(graph.values().size());
  const auto at = [&](int id) { return depends[static_cast<std::size_t>(id)]; };
  for (const int id : graph.inputs()) depends[static_cast<std::size_t>(id)] = true;
  for (const Graph::Node& node : graph.nodes()) {
    const bool any = std::ranges::any_of(node.inputs, at);
    for (const int id : node.outputs) depends[static_cast<std::size_t>(id)] = any;
  }
  return depends;
}

}  // namespace weft
