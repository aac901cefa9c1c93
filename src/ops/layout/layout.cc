#include "ops/layout/layout.h"

#include <algorithm>
#include <limits>

#include "core/format.h"

namespace weft {
namespace {

// Elements that one step along `axis` passes, the axis given from either end.
std::int64_t elements_within(const Shape& shape, int axis) {
  std::int64_t count = 1;
  for (int inner = axis < 0 ? axis + shape.rank() + 1 : axis + 1; inner < shape.rank(); ++inner) count *= shape[inner];
  return count;
}

bool has_axis(const Shape& shape, int axis) { return axis >= -shape.rank() && axis < shape.rank(); }

Shape with_extent(const Shape& shape, int axis, std::int64_t extent) {
  std::vector<std::int64_t> extents(shape.extents().begin(), shape.extents().end());
  extents[static_cast<std::size_t>(axis < 0 ? axis + shape.rank() : axis)] = extent;
  return Shape(std::move(extents));
}

}  // namespace

std::vector<TensorType> infer(const Reshape& attributes, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 1, "reshape", "takes x, got {} inputs", in.size());
  require<ShapeError>(in[0].shape.elements() == attributes.shape.elements(), "reshape",
                      "{} has {} elements, x {} has {}", attributes.shape, attributes.shape.elements(), in[0].shape,
                      in[0].shape.elements());
  return {{in[0].dtype, attributes.shape}};
}

std::int64_t macs(const Reshape&, std::span<const TensorType>) { return 0; }

void reference(const Reshape&, std::span<const Tensor> in, std::span<Tensor> out) {
  std::ranges::copy(in[0].data<double>(), out[0].mutable_data<double>().begin());
}

std::vector<TensorType> infer(const Permute& attributes, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 1, "permute", "takes x, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  std::vector<int> sorted = attributes.order;
  std::ranges::sort(sorted);
  bool is_permutation = static_cast<int>(sorted.size()) == x.rank();
  for (int axis = 0; is_permutation && axis < x.rank(); ++axis) {
    is_permutation = sorted[static_cast<std::size_t>(axis)] == axis;
  }
  require<ShapeError>(is_permutation, "permute", "order {} must name each axis of x {} once", attributes.order, x);
  std::vector<std::int64_t> extents;
  for (const int axis : attributes.order) extents.push_back(x[axis]);
  return {{in[0].dtype, Shape(std::move(extents))}};
}

std::int64_t macs(const Permute&, std::span<const TensorType>) { return 0; }

void reference(const Permute& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto y = out[0].mutable_data<double>();
  const Shape& from = in[0].shape();
  const Shape& to = out[0].shape();
  std::vector<std::int64_t> index(attributes.order.size());  // of an element, by axes of x
  for (std::int64_t flat = 0; flat < to.elements(); ++flat) {
    std::int64_t rest = flat;
    for (int axis = to.rank() - 1; axis >= 0; --axis) {
      index[static_cast<std::size_t>(attributes.order[static_cast<std::size_t>(axis)])] = rest % to[axis];
      rest /= to[axis];
    }
    std::int64_t offset = 0;
    for (int axis = 0; axis < from.rank(); ++axis) offset = offset * from[axis] + index[static_cast<std::size_t>(axis)];
    y[static_cast<std::size_t>(flat)] = x[static_cast<std::size_t>(offset)];
  }
}

std::vector<TensorType> infer(const Pad& attributes, std::span<const TensorType> in) {
  const auto& [axis, count] = attributes;
  require<ShapeError>(in.size() == 1, "pad", "takes x, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  require<ShapeError>(has_axis(x, axis), "pad", "x {} has no axis {}", x, axis);
  require<ShapeError>(count >= 0 && count <= std::numeric_limits<std::int64_t>::max() - x[axis], "pad",
                      "count must be at least 0 and leave an extent of 63 bits, got {}", count);
  return {{in[0].dtype, with_extent(x, axis, x[axis] + count)}};
}

std::int64_t macs(const Pad&, std::span<const TensorType>) { return 0; }

void reference(const Pad& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto y = out[0].mutable_data<double>();
  const std::int64_t inner = elements_within(in[0].shape(), attributes.axis);
  const std::int64_t from = in[0].shape()[attributes.axis] * inner;
  const std::int64_t to = out[0].shape()[attributes.axis] * inner;
  for (std::int64_t i = 0; i < out[0].elements(); ++i) {
    y[static_cast<std::size_t>(i)] = i % to < from ? x[static_cast<std::size_t>(i / to * from + i % to)] : 0;
  }
}

std::vector<TensorType> infer(const Slice& attributes, std::span<const TensorType> in) {
  const auto& [axis, begin, end] = attributes;
  require<ShapeError>(in.size() == 1, "slice", "takes x, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  require<ShapeError>(has_axis(x, axis), "slice", "x {} has no axis {}", x, axis);
  require<ShapeError>(begin >= 0 && begin <= end && end <= x[axis], "slice", "{} … {} is not within axis {} of x {}",
                      begin, end, axis, x);
  return {{in[0].dtype, with_extent(x, axis, end - begin)}};
}

std::int64_t macs(const Slice&, std::span<const TensorType>) { return 0; }

void reference(const Slice& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto y = out[0].mutable_data<double>();
  const std::int64_t inner = elements_within(in[0].shape(), attributes.axis);
  const std::int64_t from = in[0].shape()[attributes.axis] * inner;
  const std::int64_t to = (attributes.end - attributes.begin) * inner;
  for (std::int64_t i = 0; i < out[0].elements(); ++i) {
    y[static_cast<std::size_t>(i)] = x[static_cast<std::size_t>(i / to * from + attributes.begin * inner + i % to)];
  }
}

std::vector<TensorType> infer(const Concat& attributes, std::span<const TensorType> in) {
  require<ShapeError>(in.size() >= 2, "concat", "takes two or more inputs, got {}", in.size());
  const Shape& first = in[0].shape;
  const int axis = attributes.axis < 0 ? attributes.axis + first.rank() : attributes.axis;
  require<ShapeError>(axis >= 1 && axis < first.rank(), "concat", "{} has no axis {} after the batch axis", first,
                      attributes.axis);
  std::int64_t batch = 1;
  std::int64_t extent = 0;
  for (const TensorType& type : in) {
    bool fits = type.dtype == in[0].dtype && type.shape.rank() == first.rank();
    for (int i = 1; fits && i < first.rank(); ++i) fits = i == axis || type.shape[i] == first[i];
    fits = fits && (type.shape[0] == 1 || batch == 1 || type.shape[0] == batch);
    require<ShapeError>(fits, "concat", "inputs must differ in axis {} only, or have a batch of 1, got {}",
                        attributes.axis, fmt::join(in, " and "));
    if (type.shape[0] != 1) batch = type.shape[0];
    extent += type.shape[axis];
  }
  return {{in[0].dtype, with_extent(with_extent(first, axis, extent), 0, batch)}};
}

std::int64_t macs(const Concat&, std::span<const TensorType>) { return 0; }

void reference(const Concat& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto y = out[0].mutable_data<double>();
  const std::int64_t inner = elements_within(out[0].shape(), attributes.axis);
  const std::int64_t to = out[0].shape()[attributes.axis] * inner;
  std::int64_t offset = 0;  // of this part in each row of the result
  for (const Tensor& part : in) {
    const std::int64_t from = part.shape()[attributes.axis] * inner;
    for (std::int64_t row = 0; to > 0 && row < out[0].elements() / to; ++row) {
      for (std::int64_t i = 0; i < from; ++i) {
        y[static_cast<std::size_t>(row * to + offset + i)] =
            part.data<double>()[static_cast<std::size_t>((row * from + i) % part.elements())];
      }
    }
    offset += from;
  }
}

Value reshape(Value x, Shape shape) { return x.graph().add_one(Reshape{.shape = std::move(shape)}, {x}); }
Value permute(Value x, std::vector<int> order) { return x.graph().add_one(Permute{.order = std::move(order)}, {x}); }
Value pad(Value x, int axis, std::int64_t count) {
  return count == 0 ? x : x.graph().add_one(Pad{.axis = axis, .count = count}, {x});
}
Value slice(Value x, int axis, std::int64_t begin, std::int64_t end) {
  return x.graph().add_one(Slice{.axis = axis, .begin = begin, .end = end}, {x});
}
Value concat(std::span<const Value> parts, int axis) {
  require<ShapeError>(!parts.empty(), "concat", "takes two or more inputs, got none");
  return parts[0].graph().add(Concat{.axis = axis}, parts)[0];
}

}  // namespace weft
