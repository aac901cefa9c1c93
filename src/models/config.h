// What a family's Config struct is made into: JSON, a list of what is wrong with it, an Architecture, presets. A Config
// lists its fields once, in `kFields`, and names its family, `kFamily`; everything else follows.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/enum_names.h"
#include "core/format.h"
#include "core/json.h"
#include "graph/operation.h"
#include "models/architecture.h"

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

// The build that lies beside a Config: a member of that name would hide it.
template <class C>
ModelValues build_by_config(Graph& graph, Value image, const C& config, std::span<const int> layers) {
  return build(graph, image, config, layers);
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

/// Official code takes one number for a list of equal ones: it becomes the list.
inline void number_to_list(Json& options, const char* name, std::size_t count) {
  const auto option = options.find(name);
  if (option != options.end() && option->is_number()) *option = Json(Json::array_t(count, *option));
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

/// What an Architecture owes to its Config alone; a family derives its own from it. C has kFamily, kFields, img_size,
/// patch_size and depth; beside it lie validate(config) and build(graph, image, config, layers).
template <class C>
class ConfiguredArchitecture : public Architecture {
 public:
  using Options = C;
  /// Throws ConfigError where validate does.
  explicit ConfiguredArchitecture(C options) : options_(std::move(options)) { validate(options_); }

  std::string_view family() const override { return C::kFamily; }
  Json config() const override { return config_to_json(options_); }
  int depth() const override { return options_.depth; }
  std::array<int, 2> native_size() const override { return options_.img_size; }
  ModelValues build(Graph& graph, Value image, std::span<const int> layers) const override {
    return detail::build_by_config(graph, image, options_, layers);
  }

 protected:
  const C& options() const { return options_; }

 private:
  C options_;
};

/// Family::configure for such an architecture.
template <class A>
std::unique_ptr<const Architecture> configure(const Json& json) {
  typename A::Options options;
  config_from_json(json, options, A::Options::kFamily);
  return std::make_unique<A>(std::move(options));
}

/// Family::from_official, `read` being the family's own, which returns an optional Config.
template <class A, auto read>
std::unique_ptr<const Architecture> configure_official(std::string_view system, const Json& model,
                                                       const TensorIndex& tensors) {
  auto options = read(system, model, tensors);
  return options ? std::make_unique<A>(*std::move(options)) : nullptr;
}

/// A published model for pictures of `side` × `side`.
template <class C>
Preset preset(std::string_view name, std::string_view summary, const C& config, int side = 224) {
  return {.name = name, .summary = summary, .side = side, .config = config_to_json(config)};
}

}  // namespace weft
