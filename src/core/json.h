// JSON, as the library sees it: nlohmann's, keys in the order of the file.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace weft {

using Json = nlohmann::ordered_json;

/// On one line; bytes that are no UTF-8 replaced, so that this never throws.
inline std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace weft
