#include "ops/elementwise/broadcast.h"

#include <algorithm>

#include "core/format.h"

namespace weft {

Shape broadcast_shape(std::string_view place, std::span<const TensorType> in) {
  int rank = 0;
  for (const TensorType& type : in) rank = std::max(rank, type.shape.rank());
  std::vector<std::int64_t> extents(static_cast<std::size_t>(rank), 1);
  for (const TensorType& type : in) {
    const auto own = type.shape.extents();
    const auto aligned = std::span(extents).last(own.size());
    for (std::size_t axis = 0; axis < own.size(); ++axis) {
      require<ShapeError>(own[axis] == aligned[axis] || own[axis] == 1 || aligned[axis] == 1, place,
                          "shapes do not broadcast: {}", fmt::join(in, " and "));
      if (own[axis] != 1) aligned[axis] = own[axis];
    }
  }
  return Shape(std::move(extents));
}

Broadcast::Broadcast(std::span<const TensorType> in, const Shape& out) : strides(in.size()) {
  std::vector<std::int64_t> step(in.size(), 1);  // elements of input i from this axis inwards
  std::vector<std::int64_t> stride(in.size());   // along this axis
  std::vector<std::int64_t> reversed;            // extents, innermost first
  for (int axis = out.rank() - 1; axis >= 0; --axis) {
    const std::int64_t extent = out[axis];
    if (extent == 1) continue;
    bool merges = !reversed.empty();
    for (std::size_t i = 0; i < in.size(); ++i) {
      const int own_axis = axis - (out.rank() - in[i].shape.rank());
      const std::int64_t own = own_axis < 0 ? 1 : in[i].shape[own_axis];
      stride[i] = own == 1 ? 0 : step[i];
      step[i] *= own;
      merges = merges && stride[i] == strides[i].back() * reversed.back();
    }
    if (merges) {
      reversed.back() *= extent;
      continue;
    }
    reversed.push_back(extent);
    for (std::size_t i = 0; i < in.size(); ++i) strides[i].push_back(stride[i]);
  }
  if (reversed.empty()) {  // a single element
    reversed.push_back(1);
    for (auto& own : strides) own.push_back(0);
  }
  extents.assign(reversed.rbegin(), reversed.rend());
  for (auto& own : strides) std::ranges::reverse(own);
}

}  // namespace weft
