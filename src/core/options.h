// A struct of options and JSON: both ways, with everything that is wrong told at once. A struct lists its fields in
// `kFields` (core/field.h); fields may be numbers, strings, enumerations with names, lists, optional, JSON objects, and
// structs with fields of their own.
#pragma once

#include <fmt/ranges.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/enum_names.h"
#include "core/field.h"
#include "core/format.h"
#include "core/json.h"

namespace weft {

template <class C>
Json config_to_json(const C& config);

namespace detail {

template <class T>
constexpr bool kIsOptional = false;
template <class T>
constexpr bool kIsOptional<std::optional<T>> = true;

template <class T>
concept HasFields = requires {
  T::kFields;
};

template <class T>
Json value_to_json(const T& value) {
  if constexpr (kIsOptional<T>) {
    return value ? value_to_json(*value) : Json(nullptr);
  } else if constexpr (HasFields<T>) {
    return config_to_json(value);
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
  } else if constexpr (std::is_same_v<T, Json>) {
    if (!json.is_object()) return "expected an object";
    out = json;
  } else if constexpr (std::is_integral_v<T>) {
    // Json's own comparison takes an unsigned number beyond 63 bits for a negative one.
    const bool fits = json.is_number_unsigned()
                          ? std::in_range<T>(json.get<std::uint64_t>())
                          : json.is_number_integer() && std::in_range<T>(json.get<std::int64_t>());
    if (!fits) return std::is_unsigned_v<T> ? "expected an integer from 0" : "expected an integer";
    out = json.get<T>();
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!json.is_number()) return "expected a number";
    out = json.get<T>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) return "expected a string";
    out = json.get<std::string>();
  } else if constexpr (std::is_enum_v<T>) {
    if (!json.is_string()) return "expected a string";
    const auto found = find_enum<T>(json.get<std::string>());
    if (!found) return "expected one of " + known_names<T>();
    out = *found;
  } else {  // a list of numbers or bool
    if (!json.is_array()) return "expected a list";
    if constexpr (requires { out.resize(json.size()); }) {
      out.resize(json.size());
    } else if (json.size() != out.size()) {
      return fmt::format("expected a list of {}", out.size());
    }
    for (std::size_t i = 0; i < json.size(); ++i) {
      typename T::value_type entry{};  // not out[i], which a list of bool has none of
      if (std::string wrong = value_from_json(json[i], entry); !wrong.empty()) return wrong + " in the list";
      out[i] = entry;
    }
  }
  return "";
}

// Reads an object's fields and appends what is wrong to `wrong`; names begin with `prefix`.
template <class C>
void read_fields(const Json& json, C& config, const std::string& prefix, std::string& wrong) {
  for (const auto& item : json.items()) {  // no structured binding: clang 14 cannot capture one
    const std::string& key = item.key();
    const Json& value = item.value();
    bool known = false;
    const auto read = [&](const auto& field) {
      if (field.name != key) return;
      known = true;
      auto& out = config.*field.member;
      std::string problem;
      if constexpr (HasFields<std::remove_cvref_t<decltype(out)>>) {
        if (value.is_object()) return read_fields(value, out, fmt::format("{}{}.", prefix, key), wrong);
        problem = "expected an object";
      } else {
        problem = value_from_json(value, out);
      }
      if (problem.empty()) return;
      wrong += fmt::format("; {}{}: {}, got {}", prefix, key, problem, printable(dump(value), 60));
    };
    std::apply([&](const auto&... field) { (read(field), ...); }, C::kFields);
    if (known) continue;
    std::vector<std::string_view> names;
    std::apply([&](const auto&... field) { (names.push_back(field.name), ...); }, C::kFields);
    wrong += fmt::format("; unknown key {}{}, did you mean {}? (known: {})", prefix, printable(key, 60),
                         nearest_name(key, names), fmt::join(names, " "));
  }
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
  detail::read_fields(json, config, "", wrong);
  require<ConfigError>(wrong.empty(), place, "{}", wrong.empty() ? "" : wrong.substr(2));
}

/// The name of an option in kFields.
template <class C, class T>
constexpr std::string_view option_name(T C::*option) {
  std::string_view name;
  const auto look = [&](const auto& field) {
    if constexpr (std::is_same_v<decltype(field.member), T C::*>) {
      if (field.member == option) name = field.name;
    }
  };
  std::apply([&](const auto&... field) { (look(field), ...); }, C::kFields);
  return name;
}

/// Collects what is out of range in a configuration, to tell it in one ConfigError.
class RangeCheck {
 public:
  void expect(bool ok, std::string_view option, std::string_view expected) {
    if (!ok) wrong_ += fmt::format("{}{} must be {}", wrong_.empty() ? "" : "; ", option, expected);
  }
  void within(int value, int low, int high, std::string_view option) {
    expect(value >= low && value <= high, option, fmt::format("{} … {}, got {}", low, high, value));
  }
  void done(std::string_view place) const { require<ConfigError>(wrong_.empty(), place, "{}", wrong_); }

 private:
  std::string wrong_;
};

}  // namespace weft
