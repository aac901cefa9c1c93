// Stochastic depth: Huang et al. 2016, arXiv:1603.09382.
#pragma once

#include <string_view>

#include "graph/graph.h"

namespace weft {

/// What a residual branch adds, y [B,…]. In a graph for training it is multiplied by an input named as `name` in the
/// scope, [B,1,…], that whoever trains fills with 0 where a sample's branch is left out and with 1/(share kept)
/// elsewhere. In any other graph it is y itself.
Value drop_path(const Scope& scope, std::string_view name, Value y);

}  // namespace weft
