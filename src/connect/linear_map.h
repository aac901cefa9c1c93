// A part of a network as the linear map that it is at a given input: run by the CPU engine's kernels, not told again.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "connect/mixing.h"
#include "core/threads.h"
#include "cpu/plan.h"

namespace weft {

/// Values of a graph, by id.
using CapturedValues = std::map<int, Tensor>;

/// What a Capture of one input takes.
std::int64_t captured_bytes(const Graph& graph, std::span<const Mixing> mixings);

/// Tells what mixings read beside the value that they are linear in.
class Capture {
 public:
  /// Gives `graph`, which must be for one input of batch 1, outputs for these values. Throws as Plan does.
  Capture(Graph& graph, std::span<const Mixing> mixings, const Weights& weights, const Workers& workers);

  /// Runs the graph. Throws NumericError where something is not finite: nothing could be told of it.
  CapturedValues at(const Tensor& input) const;

 private:
  const Workers& workers_;
  CapturedValues constant_;   // weights
  std::map<int, int> ports_;  // outputs of the plan, by the value's id
  Plan plan_;
};

class LinearMap {
 public:
  /// `captured` must hold what the mixing reads. Throws as Plan does.
  LinearMap(const Graph& graph, const Mixing& mixing, const CapturedValues& captured, const Workers& workers);

  /// y = f(x) − f(0), each as long as the value is.
  void apply(std::span<const float> x, std::span<float> y);

  /// The largest |f(0)|: what biases put on top, and with them rounding errors.
  float offset() const { return offset_; }
  std::size_t inputs() const { return static_cast<std::size_t>(plan_->inputs()[0].type.shape.elements()); }
  std::size_t outputs() const { return zero_.size(); }
  /// Multiply-accumulates of one application.
  std::int64_t macs() const { return macs_; }

 private:
  void run(std::span<const float> x, std::span<float> y);

  const Workers* workers_;
  std::vector<Tensor> fixed_;  // the plan's inputs behind x
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<Plan::Context> context_;
  std::vector<float> zero_;  // f(0)
  float offset_ = 0;
  std::int64_t macs_ = 0;
};

}  // namespace weft
