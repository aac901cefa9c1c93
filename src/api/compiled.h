// A plan, and the memory of the runs that are not under way.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "cpu/plan.h"

namespace weft {

class Compiled {
 public:
  /// As Plan's constructor.
  Compiled(const Graph& graph, const Weights& weights, const Workers& workers, const std::shared_ptr<PackCache>& packs,
           DType dtype)
      : plan_(graph, weights, workers, packs, dtype) {}

  const Plan& plan() const { return plan_; }

  /// The plan's outputs from its inputs, in the order of its ports. From several threads at once if need be. Throws
  /// MemoryError when the process would pass `max_memory` bytes (0: any).
  std::vector<Tensor> run(std::span<const std::byte* const> inputs, const Workers& workers, std::int64_t max_memory);

  /// Bytes that stay allocated between runs.
  std::size_t kept_bytes();

 private:
  std::unique_ptr<Plan::Context> take_context(std::int64_t max_memory);

  Plan plan_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Plan::Context>> idle_;
};

}  // namespace weft
