// A graph as an ONNX file, for engines other than weft's own.
//
// An optional component: it needs libonnx and protobuf, which the rest of weft does without. Built without them,
// it says so.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace weft {

/// Throws UnsupportedError, with the remedy, where this build cannot export.
void require_onnx_export();

struct OnnxOptions {
  /// Names of the graph's outputs to export; empty: all. What they do not need is left out.
  std::vector<std::string> outputs;
  /// Free text about the model, by key, kept in the file.
  std::map<std::string, std::string> metadata;
};

/// The bytes of an ONNX model (opset 17, IR version 8, f32, fixed shapes) that libonnx's checker accepts. What depends
/// on weights only is computed here, in double precision, and kept as a constant. Throws UnsupportedError for an
/// operator that has no lowering and for more than the 2 GiB that one file can hold, WeightError for a parameter
/// without weights, ConfigError for an output that the graph does not have.
std::string export_onnx(const Graph& graph, const std::map<std::string, Tensor, std::less<>>& weights,
                        const OnnxOptions& options = {});

}  // namespace weft
