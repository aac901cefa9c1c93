// What the kernel says about this process's memory.
#pragma once

#include <cstdint>

namespace weft {

/// Bytes of memory that this process has now, and the most that it ever had; 0 where the system does not tell.
std::int64_t resident_bytes();
std::int64_t peak_resident_bytes();

}  // namespace weft
