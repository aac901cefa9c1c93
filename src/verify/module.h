// What builds the graphs of parts of a model: module_cases.cc lists them.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "core/format.h"
#include "core/json.h"
#include "graph/graph.h"

namespace weft {

constexpr std::int64_t kMostExtent = 65536;

// What a builder is given.
struct Module {
  Graph& graph;
  const Json& config;
  std::map<std::string, Value> inputs;

  Value input(const std::string& name) const {
    const auto found = inputs.find(name);
    require<IoError>(found != inputs.end(), graph.name(), "the case has no input {}", name);
    return found->second;
  }
  // A whole number of `least` … 65536: no product of three overflows.
  int option(const char* name, int least = 1) const {
    const Json& value = config.at(name);
    require<ConfigError>(value.is_number_integer() && value >= least && value <= kMostExtent, graph.name(),
                         "{} must be a whole number of {} … {}, got {}", name, least, kMostExtent, value.dump());
    return value.get<int>();
  }
  bool flag(const char* name) const {
    const Json& value = config.at(name);
    require<ConfigError>(value.is_boolean(), graph.name(), "{} must be true or false, got {}", name, value.dump());
    return value.get<bool>();
  }
  // An input [B,C,H,W] or [B,H,W,C].
  Value map(const std::string& name) const { return input_of_rank(name, 4, "four"); }
  // An input [B,T,C] or [T,B,C].
  Value sequence(const std::string& name) const { return input_of_rank(name, 3, "three"); }
  Value param(std::string_view name, Shape shape) const {
    return Scope(graph).param(name, std::move(shape), init::constant(0));
  }
  // Outputs are y0, y1, … in the order of these calls.
  void output(Value y) const { graph.output(fmt::format("y{}", graph.outputs().size()), y); }

 private:
  Value input_of_rank(const std::string& name, int rank, std::string_view number) const {
    const Value x = input(name);
    const Shape& shape = x.shape();
    require<ShapeError>(
        shape.rank() == rank && shape.elements() > 0 && std::ranges::max(shape.extents()) <= kMostExtent, graph.name(),
        "{} must have {} axes of 1 … {}, got {}", name, number, kMostExtent, shape);
    return x;
  }
};

// Attention free attention (module_cases_aft.cc): as in the public implementations whose options these are.
void aft_with_table(const Module& m);
void aft_with_factors(const Module& m);
void aft_with_filters(const Module& m);
void aft_simple(const Module& m);

}  // namespace weft
