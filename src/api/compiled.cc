#include "api/compiled.h"

#include <utility>

#include "api/memory_limit.h"

namespace weft {

std::vector<Tensor> Compiled::run(std::span<const std::byte* const> inputs, const Workers& workers,
                                  std::int64_t max_memory) {
  constexpr std::size_t kIdleContexts = 4;  // more runs at once than these allocate anew
  std::unique_ptr<Plan::Context> context = take_context(max_memory);
  std::vector<Tensor> outputs;
  std::vector<std::byte*> out;
  for (const Plan::Port& port : plan_.outputs()) out.push_back(outputs.emplace_back(port.type).mutable_raw());
  plan_.run(inputs, out, *context, workers);
  const std::scoped_lock lock(mutex_);
  if (idle_.size() < kIdleContexts) idle_.push_back(std::move(context));
  return outputs;
}

std::size_t Compiled::kept_bytes() {
  const std::scoped_lock lock(mutex_);
  return idle_.size() * plan_.arena_bytes();
}

std::unique_ptr<Plan::Context> Compiled::take_context(std::int64_t max_memory) {
  {
    const std::scoped_lock lock(mutex_);
    if (!idle_.empty()) {
      auto context = std::move(idle_.back());
      idle_.pop_back();
      return context;
    }
  }
  std::size_t bytes = plan_.arena_bytes();
  for (const Plan::Port& port : plan_.outputs()) bytes += port.type.bytes();
  require_memory(max_memory, static_cast<std::int64_t>(bytes), "working memory and results");
  return std::make_unique<Plan::Context>(plan_);
}

}  // namespace weft
