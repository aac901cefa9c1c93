// Reading JSON from files that nobody vouches for.
#pragma once

#include <string_view>

#include "core/json.h"

namespace weft {

/// Bounds on what parse_json builds: nesting, and the number of values (nulls, numbers, strings, arrays, objects).
inline constexpr int kMaxJsonDepth = 128;
inline constexpr std::size_t kMaxJsonValues = std::size_t{1} << 22;

/// Parses one JSON document (UTF-8, no comments). Throws IoError "[place] …" with line and column for what is no JSON,
/// for a key that an object has twice, and beyond the bounds above.
Json parse_json(std::string_view text, std::string_view place);

}  // namespace weft
