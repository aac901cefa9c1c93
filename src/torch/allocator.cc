#include "torch/allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <mutex>

namespace weft::torch_engine {
namespace {

constexpr std::size_t kLarge = 64 * 1024;  // malloc itself keeps what is smaller

// In steps of an eighth of the next lower power of two: few sizes, and little of a block unused.
std::size_t rounded_up(std::size_t bytes) {
  const std::size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

// libtorch wants a block's memory to be all that its deleter is told, so that the size stands before it.
constexpr std::size_t kHeader = 64;  // keeps the alignment

std::size_t& size_of(void* memory) {
  return *reinterpret_cast<std::size_t*>(static_cast<std::byte*>(memory) - kHeader);
}
void* block_of(void* memory) { return static_cast<std::byte*>(memory) - kHeader; }

class KeepingAllocator final : public c10::Allocator {
 public:
  // Never destroyed: tensors may outlive everything.
  static KeepingAllocator& get() {
    static auto* const self = new KeepingAllocator;
    return *self;
  }

  c10::DataPtr allocate(std::size_t bytes) const override {
    void* const memory = bytes < kLarge ? new_block(bytes) : take(rounded_up(bytes));
    return {memory, memory, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  // What newer versions of libtorch ask for.
  virtual void copy_data(void* to, const void* from, std::size_t bytes) const { std::memcpy(to, from, bytes); }

 private:
  static void* new_block(std::size_t bytes) {
    void* const memory = static_cast<std::byte*>(c10::alloc_cpu(kHeader + bytes)) + kHeader;
    size_of(memory) = bytes;
    return memory;
  }

  void* take(std::size_t size) const {
    const std::scoped_lock lock(mutex_);
    void* memory = nullptr;
    std::deque<Kept>& same = kept_[size];
    if (!same.empty()) {
      memory = same.back().memory;
      same.pop_back();
      kept_bytes_ -= size;
    } else {
      keep_at_most(room(used_bytes_ + size));
      try {
        memory = new_block(size);
      } catch (const c10::Error&) {
        keep_at_most(0);
        memory = new_block(size);
      }
    }
    used_bytes_ += size;
    most_bytes_ = std::max(most_bytes_, used_bytes_);
    return memory;
  }

  static void release(void* memory) {
    if (!memory) return;
    if (size_of(memory) < kLarge) return c10::free_cpu(block_of(memory));
    get().keep(memory);
  }

  void keep(void* memory) const {
    const std::size_t size = size_of(memory);
    const std::scoped_lock lock(mutex_);
    used_bytes_ -= size;
    kept_bytes_ += size;
    kept_[size].push_back({memory, ++clock_});
    keep_at_most(room(used_bytes_));
  }

  // What may be kept beside what is in use: all in all half as much again as was in use at once. A step wants blocks of
  // more sizes than it has at once, as its parts work with blocks of different sizes.
  std::size_t room(std::size_t used) const {
    const std::size_t most = std::max(most_bytes_, used);
    return most + most / 2 - used;
  }

  // Those that lay idle longest go first.
  void keep_at_most(std::size_t bytes) const {
    while (kept_bytes_ > bytes) {
      const auto since = [](const auto& item) {
        return item.second.empty() ? std::numeric_limits<std::uint64_t>::max() : item.second.front().since;
      };
      auto& [size, blocks] = *std::ranges::min_element(kept_, {}, since);
      c10::free_cpu(block_of(blocks.front().memory));
      blocks.pop_front();
      kept_bytes_ -= size;
    }
  }

  struct Kept {
    void* memory;
    std::uint64_t since;  // on the allocator's clock
  };

  mutable std::mutex mutex_;
  mutable std::map<std::size_t, std::deque<Kept>> kept_;  // by size, those kept last behind
  mutable std::uint64_t clock_ = 0;
  mutable std::size_t kept_bytes_ = 0, used_bytes_ = 0, most_bytes_ = 0;
};

}  // namespace

void keep_freed_memory() {
  static const bool once = [] {
    c10::SetCPUAllocator(&KeepingAllocator::get());
    return true;
  }();
  (void)once;
}

}  // namespace weft::torch_engine
