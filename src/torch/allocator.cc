#include "torch/allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

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
    std::vector<void*>& same = kept_[size];
    if (!same.empty()) {
      memory = same.back();
      same.pop_back();
      kept_bytes_ -= size;
    } else {
      try {
        memory = new_block(size);
      } catch (const c10::Error&) {
        forget();
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
    if (used_bytes_ + kept_bytes_ + size > most_bytes_) forget();
    kept_bytes_ += size;
    kept_[size].push_back(memory);
  }

  void forget() const {
    for (const auto& [size, blocks] : kept_) {
      for (void* const memory : blocks) c10::free_cpu(block_of(memory));
    }
    kept_.clear();
    kept_bytes_ = 0;
  }

  mutable std::mutex mutex_;
  mutable std::map<std::size_t, std::vector<void*>> kept_;  // by size
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
