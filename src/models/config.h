// What a family's Config struct is made into: an Architecture, presets. A Config lists its fields once, in `kFields`
// (core/options.h makes JSON of them), and names its family, `kFamily`; everything else follows.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/format.h"
#include "core/json.h"
#include "core/options.h"
#include "models/architecture.h"

namespace weft {
namespace detail {

// The build that lies beside a Config: a member of that name would hide it.
template <class C, class Wanted>
auto build_by_config(Graph& graph, Value input, const C& config, const Wanted& wanted) {
  return build(graph, input, config, wanted);
}

}  // namespace detail

/// Official code takes one number for a list of equal ones: it becomes the list.
inline void number_to_list(Json& options, const char* name, std::size_t count) {
  const auto option = options.find(name);
  if (option != options.end() && option->is_number()) *option = Json(Json::array_t(count, *option));
}

/// Where official code has two names for an option, `from` becomes `to`.
inline void rename_option(Json& options, const char* from, const char* to) {
  const auto option = options.find(from);
  if (option == options.end()) return;
  options[to] = Json(*option);
  options.erase(from);
}

/// Official options without those `names` that are not the network's: what a case was run on, what only training reads.
inline Json official_options(const Json& model, std::string_view family, std::initializer_list<const char*> names) {
  require<ConfigError>(model.is_object(), family, "the official configuration must be a JSON object, got {}",
                       model.type_name());
  Json options = model;
  for (const char* name : names) options.erase(name);
  return options;
}

/// `ratio` times `channels`, whole. A ratio read off a checkpoint, hidden/channels, may be rounded down: the product
/// must not be.
inline int hidden_channels(int channels, double ratio) {
  return static_cast<int>(std::clamp(std::floor(channels * ratio + 1e-6), 0.0, 0x1p30));
}

/// Of a family that reads square patches: patch_size, img_size, in_chans and num_classes. The upper bounds keep every
/// product of extents far from overflow. `whole_patches`: the picture must consist of them.
template <class C>
void check_pictures(const C& c, RangeCheck& check, bool whole_patches = true) {
  check.within(c.patch_size, 1, 1024, "patch_size");
  for (const int side : c.img_size) {
    check.within(side, 1, 65536, "img_size");
    check.expect(c.patch_size < 1 || !whole_patches || side % c.patch_size == 0, "img_size",
                 fmt::format("a multiple of the patch_size {}, got {}", c.patch_size, side));
  }
  check.within(c.in_chans, 1, 4096, "in_chans");
  check.within(c.num_classes, 0, 1 << 24, "num_classes");
}

/// Where weights mix tokens, their sizes grow with the square of the number of patches.
template <class C>
void check_patches(const C& c, RangeCheck& check) {
  constexpr std::int64_t kMost = 16384;
  const std::int64_t patch = std::max(c.patch_size, 1);
  const std::int64_t patches = (c.img_size[0] / patch) * (c.img_size[1] / patch);
  check.expect(patches <= kMost, "img_size", fmt::format("of at most {} patches, got {}", kMost, patches));
}

/// What an architecture of this Kind owes to its Config alone. C has kFamily, kBlocks (Architecture::block_prefix),
/// kFields, and depth, n_layer, or depths of its stages, which are its layers then. Beside it lies validate(config).
template <class C, class Kind>
class Configured : public Kind {
 public:
  using Options = C;
  /// Throws ConfigError where validate does.
  explicit Configured(C options) : options_(std::move(options)) { validate(options_); }

  std::string_view family() const override { return C::kFamily; }
  Json config() const override { return config_to_json(options_); }
  int depth() const override {
    if constexpr (requires(const C& c) { c.depths; }) {
      return static_cast<int>(options_.depths.size());
    } else if constexpr (requires(const C& c) { c.n_layer; }) {
      return options_.n_layer;
    } else {
      return options_.depth;
    }
  }
  std::string_view block_prefix() const override { return C::kBlocks; }

 protected:
  const C& options() const { return options_; }

 private:
  C options_;
};

/// What reads pictures; a family derives its own from it. C has img_size where it has a size of its own, else that is
/// 224 × 224. Beside it lies build(graph, image, config, layers).
template <class C>
class ConfiguredArchitecture : public Configured<C, PictureArchitecture> {
 public:
  using Configured<C, PictureArchitecture>::Configured;

  std::array<int, 2> native_size() const override {
    if constexpr (requires(const C& c) { c.img_size; }) {
      return this->options().img_size;
    } else {
      return {224, 224};
    }
  }
  ModelValues build(Graph& graph, Value image, std::span<const int> layers) const override {
    return detail::build_by_config(graph, image, this->options(), layers);
  }
};

/// What reads text. Beside C lies build(graph, tokens, config, which).
template <class C>
class ConfiguredLanguageModel : public Configured<C, LanguageArchitecture> {
 public:
  using Configured<C, LanguageArchitecture>::Configured;

  Value build(Graph& graph, Value tokens, LogitsOf which) const override {
    return detail::build_by_config(graph, tokens, this->options(), which);
  }
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
