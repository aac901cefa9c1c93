// What weft bench measures, each in a process of its own: models, and the machine itself.
#pragma once

#include <cstdint>
#include <string>

#include "bench_child.h"
#include "common.h"

namespace weft::cli {

/// One combination of all that is varied.
struct BenchCase {
  std::string engine;  // "weft", or the peer's name
  std::string model;   // preset or file
  LoadOptions load;
  Size size;
  int batch = 1;
  int threads = 0;
  DType dtype = DType::kF32;
  std::int64_t max_memory = 0;  // of one process; 0: no limit

  bool operator==(const BenchCase& other) const {
    return engine == other.engine && model == other.model && size == other.size && batch == other.batch &&
           threads == other.threads && dtype == other.dtype;
  }
  bool peer() const { return engine != "weft"; }
  /// "vrwkv_tiny at 224x224"
  std::string str() const;
};

/// What a child knows once it has warmed up: its first answer.
struct BenchFacts {
  std::int64_t macs = 0;    // of the batch
  std::int64_t tokens = 0;  // of one picture, in the last map
  int threads = 0;
  std::int64_t working_bytes = -1;  // −1: not known

  Json to_json() const;
  /// Throws Error for what is no answer of this kind.
  static BenchFacts from_json(const Json& json);
};

/// A model's graph at a case's input, and what there is to know about it without running it.
struct BenchGraph {
  Model model;
  Shape input;
  std::unique_ptr<Graph> graph;
  BenchFacts facts;
};
BenchGraph bench_graph(const BenchCase& bench_case);

/// A weft session. Requests: "run", {"seconds"} of one run; "memory", {"peak"} resident bytes so far.; "profile",
/// {"operations": [{"operation", "steps", "ms", "macs", "bytes"}]}, thread time of a run, the longest first.
BenchChild weft_child(const BenchCase& bench_case);
/// The machine's own peak. Request: "run", {"rate"} in operations a second, 0 where there is none for the type.
BenchChild peak_child(DType dtype, int threads);

}  // namespace weft::cli
