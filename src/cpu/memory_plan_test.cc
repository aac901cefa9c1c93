#include "cpu/memory_plan.h"

#include <gtest/gtest.h>

#include <random>

namespace weft {
namespace {

void expect_disjoint(const std::vector<Lifetime>& buffers, const MemoryPlan& plan) {
  for (std::size_t a = 0; a < buffers.size(); ++a) {
    EXPECT_EQ(plan.offsets[a] % kArenaAlignment, 0U);
    EXPECT_LE(plan.offsets[a] + buffers[a].bytes, plan.bytes);
    for (std::size_t b = 0; b < a; ++b) {
      const bool alive_together = buffers[a].first <= buffers[b].last && buffers[b].first <= buffers[a].last;
      const bool share_bytes =
          plan.offsets[a] < plan.offsets[b] + buffers[b].bytes && plan.offsets[b] < plan.offsets[a] + buffers[a].bytes;
      EXPECT_FALSE(alive_together && share_bytes) << "buffers " << a << " and " << b;
    }
  }
}

TEST(MemoryPlan, ReusesWhatIsDead) {
  // A chain in which each buffer feeds the next: two suffice.
  const std::vector<Lifetime> chain = {{640, 0, 1}, {640, 1, 2}, {640, 2, 3}, {640, 3, 4}};
  const MemoryPlan plan = plan_memory(chain);
  EXPECT_EQ(plan.bytes, 1280U);
  expect_disjoint(chain, plan);
}

TEST(MemoryPlan, FillsGapsBetweenLargerBuffers) {
  const std::vector<Lifetime> buffers = {{6400, 0, 9}, {640, 2, 3}, {6400, 4, 9}, {640, 5, 6}, {640, 0, 1}};
  const MemoryPlan plan = plan_memory(buffers);
  EXPECT_EQ(plan.bytes, 13440U);
  expect_disjoint(buffers, plan);
}

TEST(MemoryPlan, KeepsLivingBuffersApart) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<Lifetime> buffers(static_cast<std::size_t>(random() % 40));
    for (Lifetime& buffer : buffers) {
      buffer.bytes = random() % 5000;
      buffer.first = static_cast<int>(random() % 30);
      buffer.last = buffer.first + static_cast<int>(random() % 10);
    }
    expect_disjoint(buffers, plan_memory(buffers));
  }
}

TEST(MemoryPlan, NothingNeedsNothing) { EXPECT_EQ(plan_memory({}).bytes, 0U); }

}  // namespace
}  // namespace weft
