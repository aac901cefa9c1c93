#include "tests/allocations.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace {

std::atomic<std::size_t> total_calls{0};
std::atomic<std::size_t> largest_size{0};
std::atomic<std::int64_t> live_bytes{0};

void* allocate(std::size_t bytes, std::size_t alignment) {
  ++total_calls;
  std::size_t seen = largest_size;
  while (bytes > seen && !largest_size.compare_exchange_weak(seen, bytes)) {
  }
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded);
  if (!memory) throw std::bad_alloc();
  live_bytes += static_cast<std::int64_t>(malloc_usable_size(memory));
  return memory;
}

void release(void* memory) {
  live_bytes -= static_cast<std::int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

// Inlined into one another, these look to GCC as if std::free met memory of its own operator new.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

void* operator new(std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }

// The standard library's other forms call those above; a sanitizer's would not.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept try {
  return operator new(bytes);
} catch (const std::bad_alloc&) {
  return nullptr;
}
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t& tag) noexcept { return operator new(bytes, tag); }
void* operator new[](std::size_t bytes, std::align_val_t alignment) { return operator new(bytes, alignment); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }

namespace weft::tests {

AllocationCount::AllocationCount() : live_before_(live_bytes) {
  total_calls = 0;
  largest_size = 0;
}
std::size_t AllocationCount::calls() const { return total_calls; }
std::size_t AllocationCount::largest() const { return largest_size; }
std::int64_t AllocationCount::kept() const { return live_bytes - live_before_; }

namespace {

TEST(AllocationCount, SeesAllocations) {
  const AllocationCount count;
  EXPECT_EQ(count.calls(), 0U);
  auto block = std::make_unique<char[]>(1000);
  block[0] = 1;
  EXPECT_EQ(count.calls(), 1U);
  EXPECT_EQ(count.largest(), 1000U);
  EXPECT_GE(count.kept(), 1000);
  block.reset();
  EXPECT_EQ(count.kept(), 0);
}

}  // namespace
}  // namespace weft::tests
