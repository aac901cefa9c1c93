// Reference cases of parts of a model, and of operators: what runs is a graph of that part alone.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "core/json.h"
#include "graph/graph.h"

namespace weft {

/// The graph of a case of `system` with this configuration: inputs of these names and types, parameters under the names
/// in the case's checkpoint, outputs y0, y1, …. Null where the case is none of a part. Throws what Json::at throws for
/// a configuration that lacks something, ShapeError for inputs that do not fit.
std::unique_ptr<Graph> build_module(std::string_view system, const Json& config,
                                    const std::map<std::string, TensorType>& inputs);

}  // namespace weft
