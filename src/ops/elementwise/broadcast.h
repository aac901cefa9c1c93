// NumPy's broadcasting, reduced to as few loops as the shapes allow.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "weft/tensor.h"

namespace weft {

/// The common shape: right-aligned, an extent of 1 stretches. Throws ShapeError, with `place` in front, when there is
/// none.
Shape broadcast_shape(std::string_view place, std::span<const TensorType> in);

/// How to walk over the inputs of an elementwise operator in the order of its result.
struct Broadcast {
  /// Extents of the result, outermost first: no 1s, neighbours merged wherever every input allows it. At least one.
  std::vector<std::int64_t> extents;
  /// strides[i][axis]: elements from one to the next in input i; 0 where it repeats. The last is 0 or 1.
  std::vector<std::vector<std::int64_t>> strides;

  Broadcast(std::span<const TensorType> in, const Shape& out);

  std::int64_t inner() const { return extents.back(); }
  /// Where input `i` has the first element of row `row` (a row is the last axis).
  std::int64_t row_offset(std::size_t i, std::int64_t row) const {
    const std::vector<std::int64_t>& stride = strides[i];
    std::int64_t offset = 0;
    for (std::size_t axis = extents.size() - 1; axis > 1; --axis) {
      offset += row % extents[axis - 1] * stride[axis - 1];
      row /= extents[axis - 1];
    }
    return extents.size() == 1 ? 0 : offset + row * stride[0];
  }
};

}  // namespace weft
