// A model's Config struct to and from JSON. A Config lists its fields once, in `kFields`; everything else follows.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/enum_names.h"
#include "core/format.h"
#include "core/json.h"
#include "graph/operation.h"

namespace weft {
namespace detail {

template <class T>
constexpr bool kIsOptional = false;
template <class T>
constexpr bool kIsOptional<std::optional<T>> = true;

template <class T>
Json value_to_json(const T& value) {
  if constexpr (kIsOptional<T>) {
    return value ? value_to_json(*value) : Json(nullptr);
  } else if constexpr (std::is_enum_v<T>) {
    return name_of(value);
  } else {
    return value;
  }
}

// Fills `out` and returns what is wrong, if anything.
template <class T>
std::string value_from_json(const Json& json, T& out) {
  if constexpr (kIsOptional<T>) {
    if (json.is_null()) return out.reset(), "";
    return value_from_json(json, out.emplace());
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) return "expected true or false";
    out = json.get<bool>();
  } else if constexpr (std::is_same_v<T, int>) {
    if (!json.is_number_integer() || json < std::numeric_limits<int>::min() || json > std::numeric_limits<int>::max()) {
      return "expected an integer";
    }
    out = json.get<int>();
  } else if constexpr (std::is_same_v<T, double>) {
    if (!json.is_number()) return "expected a number";
    out = json.get<double>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) return "expected a string";
    out = json.get<std::string>();
  } else if constexpr (std::is_enum_v<T>) {
    if (!json.is_string()) return "expected a string";
    const auto found = find_enum<T>(json.get<std::string>());
    if (!found) return "expected one of " + known_names<T>();
    out = *found;
  } else {  // a list of numbers
    if (!json.is_array()) return "expected a list";
    if constexpr (requires { out.clear(); }) {
      out.resize(json.size());
    } else if (json.size() != out.size()) {
      return fmt::format("expected a list of {}", out.size());
    }
    for (std::size_t i = 0; i < json.size(); ++i) {
      if (std::string wrong = value_from_json(json[i], out[i]); !wrong.empty()) return wrong + " in the list";
    }
  }
  return "";
}

}  // namespace detail

template <class C>
Json config_to_json(const C& config) {
  Json json = Json::object();
  std::apply([&](const auto&... f) { ((json[std::string(f.name)] = detail::value_to_json(config.*f.member)), ...); },
             C::kFields);
  return json;
}

/// Reads `json` over the values that `config` holds; keys that are absent keep them. Everything that is wrong (unknown
/// keys, ill-typed values) is told in one ConfigError.
template <class C>
void config_from_json(const Json& json, C& config, std::string_view place) {
  require<ConfigError>(json.is_object(), place, "the configuration must be a JSON object, got {}", json.type_name());
  std::string wrong;
  for (const auto& item : json.items()) {  // no structured binding: clang 14 cannot capture one
    const std::string& key = item.key();
    const Json& value = item.value();
    bool known = false;
    const auto read = [&](const auto& field) {
      if (field.name != key) return;
      known = true;
      const std::string problem = detail::value_from_json(value, config.*field.member);
      if (!problem.empty()) wrong += fmt::format("; {}: {}, got {}", key, problem, printable(dump(value), 60));
    };
    std::apply([&](const auto&... field) { (read(field), ...); }, C::kFields);
    if (!known) {
      std::string names;
      std::apply([&](const auto&... field) { ((names += fmt::format(" {}", field.name)), ...); }, C::kFields);
      wrong += fmt::format("; unknown key {} (known:{})", printable(key, 60), names);
    }
  }
  require<ConfigError>(wrong.empty(), place, "{}", wrong.empty() ? "" : wrong.substr(2));
}

}  // namespace weft
