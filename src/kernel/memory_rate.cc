#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/memory_rate.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "kernel/memory_rate.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// So that every byte has to come. `count` is a multiple of 64.
std::uint64_t sum_of(const std::uint64_t* from, std::size_t count) {
  const hn::ScalableTag<std::uint64_t> d;
  const std::size_t lanes = hn::Lanes(d);
  auto sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  for (std::size_t i = 0; i < count; i += 4 * lanes) {
    sum0 = hn::Add(sum0, hn::LoadU(d, from + i));
    sum1 = hn::Add(sum1, hn::LoadU(d, from + i + lanes));
    sum2 = hn::Add(sum2, hn::LoadU(d, from + i + 2 * lanes));
    sum3 = hn::Add(sum3, hn::LoadU(d, from + i + 3 * lanes));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(sum_of);

constexpr std::int64_t kBytes = std::int64_t{256} << 20;
constexpr std::size_t kUnit = 64;  // words that the loop takes at once, on the widest machine

}  // namespace

MemoryRate::MemoryRate() : memory_(DType::kU8, Shape{kBytes}) {
  std::memset(memory_.mutable_raw(), 1, memory_.bytes());  // pages of its own: those never written are all one
}

double MemoryRate::measure(const Workers& workers) const {
  const auto* const words = reinterpret_cast<const std::uint64_t*>(memory_.raw());
  const auto parts = static_cast<std::size_t>(workers.count());
  const std::size_t part = memory_.bytes() / sizeof(std::uint64_t) / parts / kUnit * kUnit;
  std::atomic<std::uint64_t> sum = 0;
  double best = 0;
  for (int pass = 0; pass < 3; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    workers.parallel_for(workers.count(), 1, [&](std::int64_t i, std::int64_t) {
      sum += HWY_DYNAMIC_DISPATCH(sum_of)(words + static_cast<std::size_t>(i) * part, part);
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(part * parts * sizeof(std::uint64_t)) / seconds);
  }
  return sum == 0 ? 0 : best;  // it is not, which the compiler does not know
}

}  // namespace weft
#endif  // HWY_ONCE
