// What a graph consists of, part by part: parameters, multiply-accumulates, memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft::cli {

struct Part {
  std::string name;  // "backbone.layers.3", within it "att"
  std::int64_t parameters = 0;
  std::int64_t macs = 0;
  std::vector<Part> parts = {};
  bool operator==(const Part&) const = default;
};

/// The parts in the order of the graph. A numbered part ("layers.3") has parts of its own; others are cut at two names.
/// What an operation does counts where its weights are, else where the model placed it.
std::vector<Part> parts_of(const Graph& graph);

/// Bytes of results that are alive at once when the graph runs operation by operation, in one arena.
std::int64_t live_bytes(const Graph& graph);

}  // namespace weft::cli
