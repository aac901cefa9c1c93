// Enumerators by name. An enumeration lists its names once, beside it:
//   constexpr std::array<std::pair<Wkv, std::string_view>, 2> enum_names(Wkv) { return {{{Wkv::kPaper, "paper"}, …}}; }
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>

namespace weft {

template <class E>
concept NamedEnum = requires {
  enum_names(E{});
};

template <NamedEnum E>
constexpr std::string_view name_of(E value) {
  for (const auto& [candidate, name] : enum_names(E{})) {
    if (candidate == value) return name;
  }
  return "?";
}

/// The enumerator of this name, if there is one.
template <NamedEnum E>
constexpr std::optional<E> find_enum(std::string_view text) {
  for (const auto& [value, name] : enum_names(E{})) {
    if (name == text) return value;
  }
  return std::nullopt;
}

/// "paper, released_kernel"
template <NamedEnum E>
std::string known_names() {
  std::string known;
  for (const auto& [value, name] : enum_names(E{})) known += fmt::format("{}{}", known.empty() ? "" : ", ", name);
  return known;
}

}  // namespace weft
