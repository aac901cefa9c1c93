// The bound on a process's memory that a user may set.
#pragma once

#include <cstdint>
#include <string_view>

namespace weft {

/// Throws MemoryError when this process, with `more` bytes for `what` on top of what it has, would pass `limit` bytes.
/// A limit of 0 is none.
void require_memory(std::int64_t limit, std::int64_t more, std::string_view what);

}  // namespace weft
