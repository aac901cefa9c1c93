// Where in one arena each buffer lives: buffers whose lifetimes overlap never share bytes.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace weft {

/// A buffer that is written first in step `first` and read last in step `last` (inclusive).
struct Lifetime {
  std::size_t bytes = 0;
  int first = 0;
  int last = 0;
};

struct MemoryPlan {
  std::vector<std::size_t> offsets;  // per buffer, multiples of kArenaAlignment
  std::size_t bytes = 0;             // size of the arena
};

constexpr std::size_t kArenaAlignment = 64;

/// Greedy by size: the largest buffer first, each at the lowest offset that is free for its whole lifetime
/// (Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
MemoryPlan plan_memory(std::span<const Lifetime> buffers);

}  // namespace weft
