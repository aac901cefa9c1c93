#include "models/recogniser.h"

#include <algorithm>
#include <cmath>

#include "core/format.h"

namespace weft {

std::optional<Layout> Layout::find(const TensorIndex& tensors, std::string_view family,
                                   std::initializer_list<std::string_view> marks) {
  std::optional<Layout> found;
  const std::string_view first = *marks.begin();
  for (const auto& [name, type] : tensors) {
    if (!name.ends_with(first)) continue;
    const Layout layout(tensors, family, name.substr(0, name.size() - first.size()));
    const bool whole_words = layout.prefix_.empty() || layout.prefix_.ends_with('.');
    if (whole_words && std::ranges::all_of(marks, [&](std::string_view mark) { return layout.has(mark); })) {
      found = layout;
    }
  }
  return found;
}

const TensorType* Layout::tensor_in_file(const std::string& name) const {
  const auto entry = tensors_->find(name);
  return entry == tensors_->end() ? nullptr : &entry->second;
}

int Layout::extent(std::string_view name, int rank, int axis) const {
  const TensorType* type = tensor(name);
  require<WeightError>(type != nullptr, family_, "looks like a member of this family, but has no tensor {}",
                       in_file(name));
  require<WeightError>(type->shape.rank() == rank, family_, "{} must have {} axes, got {}", in_file(name), rank,
                       type->shape);
  const std::int64_t extent = type->shape[axis];
  require<WeightError>(extent > 0 && extent <= 1 << 24, family_, "{} has an impossible shape {}", in_file(name),
                       type->shape);
  return static_cast<int>(extent);
}

int Layout::count(std::string_view group, std::string_view member) const {
  int count = 0;
  while (has(fmt::format("{}.{}.{}", group, count, member))) ++count;
  return count;
}

std::map<std::string, std::string> Layout::renamed(std::string_view to) const {
  std::map<std::string, std::string> renamed;
  if (prefix_ == to) return renamed;
  for (const auto& [name, type] : *tensors_) {
    if (name.starts_with(prefix_)) renamed[name] = fmt::format("{}{}", to, name.substr(prefix_.size()));
  }
  return renamed;
}

std::set<std::string> Layout::named(std::initializer_list<std::string_view> last_words) const {
  std::set<std::string> names;
  for (const auto& [name, type] : *tensors_) {
    const std::string_view last = std::string_view(name).substr(name.rfind('.') + 1);
    if (name.starts_with(prefix_) && std::ranges::find(last_words, last) != last_words.end()) names.insert(name);
  }
  return names;
}

int Layout::square_side(std::string_view name, int positions, bool size_is_given) const {
  const int side = static_cast<int>(std::lround(std::sqrt(std::max(positions, 0))));
  require<ConfigError>((positions > 0 && side * side == positions) || size_is_given, family_,
                       "{} has {} positions of patches, which is no square; tell the picture's size with "
                       "img_size=[H,W]",
                       in_file(name), positions);
  return side;
}

}  // namespace weft
