#include "cpu/memory_plan.h"

#include <algorithm>
#include <numeric>

namespace weft {

MemoryPlan plan_memory(std::span<const Lifetime> buffers) {
  std::vector<std::size_t> by_size(buffers.size());
  std::iota(by_size.begin(), by_size.end(), 0);
  std::ranges::stable_sort(by_size, [&](auto a, auto b) { return buffers[a].bytes > buffers[b].bytes; });

  const auto aligned = [](std::size_t bytes) {
    return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  };
  MemoryPlan plan{.offsets = std::vector<std::size_t>(buffers.size(), 0)};
  std::vector<std::size_t> placed;  // by offset
  for (const std::size_t index : by_size) {
    const Lifetime& buffer = buffers[index];
    std::size_t offset = 0;
    for (const std::size_t other : placed) {
      const bool alive_together = buffers[other].first <= buffer.last && buffer.first <= buffers[other].last;
      if (!alive_together) continue;
      if (plan.offsets[other] >= offset + aligned(buffer.bytes)) break;  // fits in the gap below `other`
      offset = std::max(offset, plan.offsets[other] + aligned(buffers[other].bytes));
    }
    plan.offsets[index] = offset;
    plan.bytes = std::max(plan.bytes, offset + aligned(buffer.bytes));
    placed.insert(std::ranges::upper_bound(placed, offset, {}, [&](std::size_t i) { return plan.offsets[i]; }), index);
  }
  return plan;
}

}  // namespace weft
