#include "core/threads.h"

#include <tbb/global_control.h>
#include <tbb/info.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>

#include "core/format.h"

#ifdef WEFT_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace weft {
namespace {

// oneTBB is not instrumented, so the thread sanitizer cannot see what it orders: what was before a job comes before its
// parts, and these come before what is after it. This tells it; the file itself is built without instrumentation.
class Order {
 public:
  Order() { release(begin_); }
  ~Order() { acquire(end_); }
  Order(const Order&) = delete;
  Order& operator=(const Order&) = delete;

  template <class F>
  void part(const F& body) {
    acquire(begin_);
    body();
    release(end_);
  }

 private:
#ifdef WEFT_THREAD_SANITIZER
  static void acquire(char& point) { __tsan_acquire(&point); }
  static void release(char& point) { __tsan_release(&point); }
#else
  static void acquire(char& /*point*/) {}
  static void release(char& /*point*/) {}
#endif

  char begin_ = 0;
  char end_ = 0;
};

}  // namespace

struct Workers::Impl {
  explicit Impl(int count)
      : threads(count),
        limit(tbb::global_control::max_allowed_parallelism,
              static_cast<std::size_t>(std::max(count, tbb::info::default_concurrency()))),
        arena(count, /*reserved_for_masters=*/1) {}
  int threads;
  tbb::global_control limit;  // without it, oneTBB caps the threads of all pools at the number of cores
  mutable tbb::task_arena arena;
};

Workers::Workers(int threads) {
  require<ConfigError>(threads >= 0 && threads <= 1024, "threads", "expected 0 (one per core) to 1024, got {}",
                       threads);
  impl_ = std::make_unique<Impl>(threads > 0 ? threads : tbb::info::default_concurrency());
}

Workers::~Workers() = default;
Workers::Workers(Workers&&) noexcept = default;
Workers& Workers::operator=(Workers&&) noexcept = default;

int Workers::count() const { return impl_->threads; }

int Workers::index() const {
  // A pool of one thread runs its tiles in the caller, who may be in an arena of somebody else's.
  return impl_->threads == 1 ? 0 : tbb::this_task_arena::current_thread_index();
}

void Workers::enter(FunctionRef<void()> body) const {
  if (impl_->threads == 1) return body();
  Order order;
  impl_->arena.execute([&] { order.part(body); });
}

void Workers::parallel_for(std::int64_t n, std::int64_t grain,
                           FunctionRef<void(std::int64_t, std::int64_t)> body) const {
  if (n <= 0) return;
  const std::int64_t tiles = (n + grain - 1) / grain;
  Order order;
  const auto run_tile = [&](std::int64_t tile) {
    order.part([&] { body(tile * grain, std::min(n, (tile + 1) * grain)); });
  };
  if (impl_->threads == 1) {
    for (std::int64_t tile = 0; tile < tiles; ++tile) run_tile(tile);
    return;
  }
  impl_->arena.execute([&] {
    if (tiles == 1) {
      run_tile(0);
    } else {
      tbb::parallel_for(std::int64_t{0}, tiles, run_tile, tbb::simple_partitioner{});
    }
  });
}

}  // namespace weft
