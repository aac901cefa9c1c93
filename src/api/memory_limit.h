// The bound on a process's memory that a user may set.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "kernel/kernel.h"

namespace weft {

/// Throws MemoryError when this process, with `more` bytes for `what` on top of what it has, would pass `limit` bytes.
/// A limit of 0 is none.
void require_memory(std::int64_t limit, std::int64_t more, std::string_view what);

/// For packed weights, which this limit is asked for one by one.
std::shared_ptr<PackCache> make_packs(std::int64_t limit);

}  // namespace weft
