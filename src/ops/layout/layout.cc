#include "ops/layout/layout.h"

#include <algorithm>

#include "core/format.h"

namespace weft {

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

Value reshape(Value x, Shape shape) { return x.graph().add_one(Reshape{.shape = std::move(shape)}, {x}); }
Value permute(Value x, std::vector<int> order) { return x.graph().add_one(Permute{.order = std::move(order)}, {x}); }

}  // namespace weft
