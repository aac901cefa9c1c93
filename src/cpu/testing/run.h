// A graph run once by the CPU engine.
#pragma once

#include <span>
#include <vector>

#include "cpu/plan.h"

namespace weft::testing {

/// The outputs, in the order of the graph. `inputs` are f32.
inline std::vector<Tensor> run_plan(const Graph& graph, const Weights& weights, std::span<const Tensor> inputs,
                                    int threads, DType precision = DType::kF32) {
  const Workers workers(threads);
  const Plan plan(graph, weights, workers, std::make_shared<PackCache>(), precision);
  Plan::Context context(plan);
  std::vector<const std::byte*> in;
  std::vector<Tensor> outputs;
  std::vector<std::byte*> out;
  for (const Tensor& input : inputs) in.push_back(input.raw());
  for (const Plan::Port& port : plan.outputs()) out.push_back(outputs.emplace_back(port.type).mutable_raw());
  plan.run(in, out, context, workers);
  return outputs;
}

}  // namespace weft::testing
