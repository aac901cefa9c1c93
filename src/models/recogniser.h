// From the names and shapes of a checkpoint's tensors to a configuration, with a reason for every option.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "models/architecture.h"
#include "models/config.h"

namespace weft {

/// A checkpoint's tensors under a family's official names, whatever stands before these in the file.
class Layout {
 public:
  /// `marks` are tensors that every member of the family has and that no other family has together; the first is what
  /// the prefix is found by: nothing, or words that end in ".". Returns nothing where they are not there.
  static std::optional<Layout> find(const TensorIndex& tensors, std::string_view family,
                                    std::initializer_list<std::string_view> marks);

  const std::string& prefix() const { return prefix_; }
  /// As the file has it: with the prefix.
  std::string in_file(std::string_view name) const { return prefix_ + std::string(name); }
  /// Null when it is absent.
  const TensorType* tensor(std::string_view name) const { return tensor_in_file(in_file(name)); }
  bool has(std::string_view name) const { return tensor(name) != nullptr; }
  /// Without the prefix: what the official layout has outside of the part that is prefixed.
  const TensorType* tensor_in_file(const std::string& name) const;
  /// Extent `axis` of a tensor that every member has. Throws WeightError where it is absent or of another rank.
  int extent(std::string_view name, int rank, int axis) const;
  /// How many there are of `group`.0.`member`, `group`.1.`member`, …
  int count(std::string_view group, std::string_view member) const;
  /// How many patches a side the grid has that the `positions` of tensor `name` make, taken as a square. Throws
  /// ConfigError where they are no square, unless the size is given elsewhere.
  int square_side(std::string_view name, int positions, bool size_is_given) const;
  /// Names with `to` in the place of the prefix, by the file's; empty where that changes nothing.
  std::map<std::string, std::string> renamed(std::string_view to) const;
  /// The file's names, among those with the prefix, whose last word is one of these: for Recognition::derived.
  std::set<std::string> named(std::initializer_list<std::string_view> last_words) const;

 private:
  Layout(const TensorIndex& tensors, std::string_view family, std::string prefix)
      : tensors_(&tensors), family_(family), prefix_(std::move(prefix)) {}

  const TensorIndex* tensors_;
  std::string_view family_;
  std::string prefix_;
};

/// Fills a Config option by option and notes why. C is as ConfiguredArchitecture wants it.
template <class C>
class Recogniser {
 public:
  /// `overrides` are options that the user set: they win, in done().
  Recogniser(const Layout& layout, const Json& overrides) : layout_(layout), overrides_(overrides) {}

  const C& config() const { return config_; }
  bool overridden(std::string_view option) const { return overrides_.contains(option); }

  template <class T>
  void found(T C::*option, std::type_identity_t<T> value, std::string reason) {
    note(option, std::move(value), std::move(reason), false);
  }
  /// What the file does not tell: a documented default.
  template <class T>
  void assumed(T C::*option, std::type_identity_t<T> value, std::string reason) {
    note(option, std::move(value), std::move(reason), true);
  }

  void found_extent(int C::*option, std::string_view name, int rank, int axis) {
    found(option, layout_.extent(name, rank, axis), shape_of(name));
  }
  void found_presence(bool C::*option, std::string_view name) { found(option, layout_.has(name), presence_of(name)); }
  void found_depth(std::string_view group, std::string_view member) {
    found(&C::depth, layout_.count(group, member), fmt::format("number of {}.*", layout_.in_file(group)));
  }
  /// From the weight of the head; without one it is a bare backbone.
  void found_classes(std::string_view head) {
    if (layout_.has(head)) return found_extent(&C::num_classes, head, 2, 0);
    found(&C::num_classes, 0, fmt::format("no {}: a bare backbone", layout_.in_file(head)));
  }
  /// From the norms "norm0", "norm1", … that detection code has behind the stages whose maps it gives. After depths.
  void found_out_indices() {
    std::vector<int> normed;
    for (int i = 0; i < static_cast<int>(config_.depths.size()); ++i) {
      if (layout_.has(fmt::format("norm{}.weight", i))) normed.push_back(i);
    }
    std::string reason =
        fmt::format("{} {}", layout_.in_file("norm*.weight"), normed.empty() ? "are absent" : "are there");
    found(&C::out_indices, std::move(normed), std::move(reason));
  }
  /// From tensor `name`, a map [1,C,H,W] of positions of patches. After patch_size.
  void found_img_size(std::string_view name) {
    const auto side = [&](int axis) {
      return pixels(std::int64_t{layout_.extent(name, 4, axis)} * config_.patch_size);
    };
    found(&C::img_size, {side(2), side(3)}, shape_of(name));
  }
  /// That of square pictures of `side` pixels, however many these are: validate bounds them.
  void assume_square(std::int64_t side, std::string reason) {
    assumed(&C::img_size, {pixels(side), pixels(side)}, std::move(reason));
  }
  /// From tensor `name`, which has `positions` of patches. Which grid the patches make, only a square number tells.
  /// After patch_size.
  void assume_img_size(std::string_view name, int positions) {
    const std::int64_t side = layout_.square_side(name, positions, overridden("img_size"));
    assume_square(side * config_.patch_size,
                  fmt::format("{} has {} positions of patches, taken as a square", layout_.in_file(name), positions));
  }

  std::string shape_of(std::string_view name) const { return fmt::format("shape of {}", layout_.in_file(name)); }
  std::string presence_of(std::string_view name) const {
    return fmt::format("{} is {}", layout_.in_file(name), layout_.has(name) ? "there" : "absent");
  }

  /// Once, at the end. Throws ConfigError for overrides that are none of the family's.
  Recognition done(std::map<std::string, std::string> renamed, std::set<std::string> derived = {}) {
    config_from_json(overrides_, config_, C::kFamily);
    for (Finding& finding : findings_) {
      if (!overridden(finding.option)) continue;
      finding = {finding.option, overrides_[finding.option].dump(), "set by the user", false};
    }
    return {config_to_json(config_), std::move(findings_), std::move(renamed), std::move(derived)};
  }

 private:
  static int pixels(std::int64_t side) { return static_cast<int>(std::min<std::int64_t>(side, 1 << 24)); }

  template <class T>
  void note(T C::*option, T value, std::string reason, bool assumed) {
    config_.*option = std::move(value);
    findings_.push_back(
        {std::string(option_name(option)), detail::value_to_json(config_.*option).dump(), std::move(reason), assumed});
  }

  const Layout& layout_;
  const Json& overrides_;
  C config_;
  std::vector<Finding> findings_;
};

}  // namespace weft
