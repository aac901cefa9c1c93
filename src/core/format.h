// Error text in one form everywhere: "[place] message".
#pragma once

#include <fmt/format.h>

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "weft/error.h"
#include "weft/tensor.h"

namespace weft {

/// Throws E with "[place] message".
template <class E, class... Args>
[[noreturn]] void fail(std::string_view place, fmt::format_string<Args...> message, Args&&... args) {
  throw E(fmt::format("[{}] {}", place, fmt::format(message, std::forward<Args>(args)...)));
}

/// fail() unless `ok`.
template <class E, class... Args>
void require(bool ok, std::string_view place, fmt::format_string<Args...> message, Args&&... args) {
  if (!ok) fail<E>(place, message, std::forward<Args>(args)...);
}

/// Length of the well-formed UTF-8 sequence that `text` starts with; 0 when there is none.
std::size_t utf8_length(std::string_view text);
/// Whether the whole text is well-formed.
bool is_utf8(std::string_view text);

/// The product of counts. Throws ShapeError when 63 bits cannot hold it.
std::int64_t count_product(std::initializer_list<std::int64_t> factors);

/// Text from a file or a user, safe to print on one line: control characters and broken UTF-8 escaped, cut at `limit`.
std::string printable(std::string_view text, std::size_t limit = 200);

/// The one of `names` that takes the fewest insertions, deletions and replacements to become `name` (Levenshtein 1966);
/// the first of several. Empty where there are no names.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> names);

}  // namespace weft

template <>
struct fmt::formatter<weft::Shape> : fmt::formatter<std::string> {
  auto format(const weft::Shape& shape, format_context& context) const {
    return fmt::formatter<std::string>::format(shape.str(), context);
  }
};

template <>
struct fmt::formatter<weft::TensorType> : fmt::formatter<std::string> {
  auto format(const weft::TensorType& type, format_context& context) const {
    return fmt::formatter<std::string>::format(type.str(), context);
  }
};
