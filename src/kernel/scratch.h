// How scratch memory is divided.
#pragma once

#include <cstddef>

namespace weft {

/// Bytes in whole cache lines: what follows them is aligned as they are.
constexpr std::size_t whole_lines(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace weft
