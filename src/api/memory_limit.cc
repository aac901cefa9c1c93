#include "api/memory_limit.h"

#include "core/format.h"
#include "core/process_memory.h"

namespace weft {

void require_memory(std::int64_t limit, std::int64_t more, std::string_view what) {
  if (limit == 0) return;
  const std::int64_t present = resident_bytes();
  const auto mib = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  require<MemoryError>(
      present + more <= limit, "session",
      "{} would take {:.1f} MiB on top of the {:.1f} MiB that the process has; the limit is {:.1f} MiB; "
      "take smaller inputs, fewer at once or fewer threads, or raise the limit",
      what, mib(more), mib(present), mib(limit));
}

std::shared_ptr<PackCache> make_packs(std::int64_t limit) {
  return std::make_shared<PackCache>([limit](std::int64_t bytes) { require_memory(limit, bytes, "packed weights"); });
}

}  // namespace weft
