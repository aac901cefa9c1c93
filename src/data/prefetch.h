// A sequence of batches, made ahead of their use by worker threads and handed out in order.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace weft {

/// Batch n is made of parts, which are made in any order and at the same time; which thread makes which is left open,
/// so `make` must depend on its arguments alone. Not to be used by several threads at once itself.
template <class Batch>
class Prefetch {
 public:
  struct Recipe {
    /// Batch n with room for its parts, and their number, ≥ 1; nothing at the end. Called for n = 0, 1, …, one at a
    /// time.
    std::function<std::optional<std::pair<Batch, int>>(std::int64_t n)> begin;
    /// Makes one part. Called on any thread.
    std::function<void(Batch& batch, int part)> make;
  };

  /// `workers` = 0: everything happens in next(). Up to `ahead` ≥ 1 batches are begun before they are asked for.
  Prefetch(Recipe recipe, int workers, int ahead)
      : recipe_(std::move(recipe)), ahead_(static_cast<std::size_t>(ahead)) {
    try {
      // Not a lambda: a shared library would export std::thread's code for it.
      for (int i = 0; i < workers; ++i) threads_.emplace_back(&run, static_cast<void*>(this));
    } catch (...) {
      stop();  // those that did start would be waited for without end
      throw;
    }
  }

  /// Waits for the parts under way, no more.
  ~Prefetch() { stop(); }
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  /// The next batch, nothing at the end. Throws what making it threw (of several parts, what the first of them did);
  /// later calls go on behind it.
  std::optional<Batch> next() {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return slots_.empty() ? ended_ : slots_.front().left == 0; };
    while (threads_.empty() && !ready()) step(lock);
    changed_.wait(lock, ready);
    if (slots_.empty()) return std::nullopt;
    Slot slot = std::move(slots_.front());
    slots_.pop_front();
    lock.unlock();
    changed_.notify_all();
    if (slot.error) std::rethrow_exception(slot.error);
    return std::move(slot.batch);
  }

 private:
  static void run(void* self) { static_cast<Prefetch*>(self)->work(); }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
  }

  struct Slot {
    std::optional<Batch> batch;
    int parts = 0;
    int taken = 0;    // parts that a thread has taken
    int left = 0;     // parts not made yet
    int failed = -1;  // the first part that failed, or none
    std::exception_ptr error;
  };

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stopped_ || has_work(); });
      if (stopped_) return;
      step(lock);
    }
  }

  bool has_work() const {
    return (!slots_.empty() && slots_.back().taken < slots_.back().parts) || (!ended_ && slots_.size() < ahead_);
  }

  // Begins a batch or makes a part. False when there is nothing to do.
  bool step(std::unique_lock<std::mutex>& lock) {
    if (!has_work()) return false;
    if (slots_.empty() || slots_.back().taken == slots_.back().parts) {
      begin();
      changed_.notify_all();
      return true;
    }
    Slot& slot = slots_.back();  // stays where it is until all of its parts are made
    const int part = slot.taken++;
    lock.unlock();
    std::exception_ptr error;
    try {
      recipe_.make(*slot.batch, part);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error && (slot.failed < 0 || part < slot.failed)) {
      slot.failed = part;
      slot.error = error;
    }
    if (--slot.left == 0) changed_.notify_all();
    return true;
  }

  void begin() {
    Slot slot;
    try {
      if (auto begun = recipe_.begin(begun_++)) {
        slot.batch = std::move(begun->first);
        slot.parts = slot.left = begun->second;
      } else {
        ended_ = true;
        return;
      }
    } catch (...) {
      slot.error = std::current_exception();
    }
    slots_.push_back(std::move(slot));
  }

  Recipe recipe_;
  std::size_t ahead_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Slot> slots_;  // only the last one has parts that nobody has taken
  std::int64_t begun_ = 0;
  bool ended_ = false;
  bool stopped_ = false;
  std::vector<std::jthread> threads_;  // last, so that they end before what they use
};

}  // namespace weft
