#include "connect/axes.h"

#include <algorithm>
#include <array>

#include "ops/ops.h"

namespace weft {
namespace {

Axes axes_of_input(const Graph::ValueInfo& input) {
  Axes axes(static_cast<std::size_t>(input.type.shape.rank()), Axis::kPosition);
  if (axes.size() < 2) return axes;
  axes.front() = Axis::kBatch;
  axes[input.name == "image" ? 1 : axes.size() - 1] = Axis::kChannel;
  return axes;
}

// What one axis stands for that takes the place of these.
Axis merged(std::span<const Axis> axes) {
  const auto has = [&](Axis axis) { return std::ranges::find(axes, axis) != axes.end(); };
  if (has(Axis::kBoth) || (has(Axis::kPosition) && has(Axis::kChannel))) return Axis::kBoth;
  if (has(Axis::kPosition)) return Axis::kPosition;
  return has(Axis::kChannel) ? Axis::kChannel : Axis::kBatch;
}

// Runs of axes that hold the same elements before and after: [B,T,C] → [B,H,W,C] has B | T → H,W | C.
Axes reshaped(const Shape& from, const Axes& axes, const Shape& to) {
  Axes result;
  int i = 0;
  for (int j = 0; j < to.rank();) {
    const int first = i, first_to = j;
    std::int64_t before = i < from.rank() ? from[i++] : 1;
    std::int64_t after = to[j++];
    while (before != after) {
      if (before < after && i < from.rank()) {
        before *= from[i++];
      } else if (j < to.rank()) {
        after *= to[j++];
      } else {
        break;
      }
    }
    if (j == to.rank()) i = from.rank();
    const std::span<const Axis> run(axes.begin() + first, axes.begin() + i);
    const Axis axis = run.empty() ? Axis::kChannel : merged(run);
    result.insert(result.end(), static_cast<std::size_t>(j - first_to), axis);
    // Positions and channels that were one axis come apart as they were put together.
    if (axis == Axis::kBoth && j - first_to > 1) {
      std::fill(result.end() - (j - first_to), result.end() - 1, Axis::kPosition);
      result.back() = Axis::kChannel;
    }
  }
  return result;
}

Axes axes_of_result(const Graph& graph, const Graph::Node& node, const std::vector<Axes>& known) {
  const Shape& to = graph.value(node.outputs[0]).type.shape;
  const auto source =
      std::ranges::find_if(node.inputs, [&](int id) { return !known[static_cast<std::size_t>(id)].empty(); });
  if (source == node.inputs.end()) return {};
  const Shape& from = graph.value(*source).type.shape;
  Axes axes = known[static_cast<std::size_t>(*source)];
  if (const auto* permute = node.operation.as<Permute>()) {
    Axes result;
    for (const int axis : permute->order) result.push_back(axes[static_cast<std::size_t>(axis)]);
    return result;
  }
  if (node.operation.as<Reshape>()) return reshaped(from, axes, to);
  if (node.operation.as<PatchEmbed>()) return {Axis::kBatch, Axis::kPosition, Axis::kChannel};
  if (const auto* mean = node.operation.as<Mean>()) {
    axes.erase(axes.begin() + (mean->axis < 0 ? mean->axis + from.rank() : mean->axis));
    return axes;
  }
  // What a product makes of some channels of some positions are channels, unless it takes all positions.
  if (node.operation.as<Linear>() && axes.back() == Axis::kBoth &&
      std::ranges::find(axes, Axis::kPosition) != axes.end()) {
    axes.back() = Axis::kChannel;
  }
  return to.rank() == from.rank() ? axes : Axes{};
}

}  // namespace

std::vector<Axes> axes_of(const Graph& graph) {
  std::vector<Axes> axes(graph.values().size());
  for (const int id : graph.inputs()) axes[static_cast<std::size_t>(id)] = axes_of_input(graph.value(id));
  for (const Graph::Node& node : graph.nodes()) {
    const Axes result = axes_of_result(graph, node, axes);
    for (const int id : node.outputs) axes[static_cast<std::size_t>(id)] = result;
  }
  return axes;
}

ElementIndex index_elements(const Shape& shape, const Axes& axes) {
  ElementIndex index{.position = {0}, .channel = {0}};
  std::int64_t stride = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    if (axes[static_cast<std::size_t>(axis)] != Axis::kBatch) {
      auto& starts = axes[static_cast<std::size_t>(axis)] == Axis::kPosition ? index.position : index.channel;
      std::vector<std::int64_t> wider;
      for (std::int64_t i = 0; i < shape[axis]; ++i) {
        for (const std::int64_t start : starts) wider.push_back(i * stride + start);
      }
      starts = std::move(wider);
    }
    stride *= shape[axis];
  }
  return index;
}

std::optional<Grid> grid_of(const Graph& graph, const std::vector<Axes>& axes, int value) {
  const auto position_extents = [&](int id) {
    std::vector<std::int64_t> extents;
    const Shape& shape = graph.value(id).type.shape;
    for (int axis = 0; axis < static_cast<int>(axes[static_cast<std::size_t>(id)].size()); ++axis) {
      if (axes[static_cast<std::size_t>(id)][static_cast<std::size_t>(axis)] == Axis::kPosition) {
        extents.push_back(shape[axis]);
      }
    }
    return extents;
  };
  const std::vector<std::int64_t> extents = position_extents(value);
  if (extents.size() == 2) return Grid{extents[0], extents[1]};
  if (extents.size() == 4) return Grid{extents[0] * extents[1], extents[2] * extents[3]};
  if (extents.size() != 1 || graph.inputs().empty()) return std::nullopt;
  const std::vector<std::int64_t> picture = position_extents(graph.inputs()[0]);
  if (picture.size() != 2) return std::nullopt;
  constexpr std::int64_t kMostPrefix = 2;  // tokens of class and distillation
  for (std::int64_t prefix = 0; prefix <= kMostPrefix; ++prefix) {
    for (std::int64_t step = 1; step <= std::max(picture[0], picture[1]); ++step) {
      for (const std::int64_t up : {step - 1, std::int64_t{0}}) {
        const Grid grid{(picture[0] + up) / step, (picture[1] + up) / step, prefix};
        if (grid.height * grid.width + prefix == extents[0]) return grid;
      }
    }
  }
  return std::nullopt;
}

}  // namespace weft
