#include "ops/mean/mean.h"

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const Mean& attributes, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 1, "mean", "takes x, got {} inputs", in.size());
  const Shape& x = in[0].shape;
  const int axis = attributes.axis < 0 ? attributes.axis + x.rank() : attributes.axis;
  require<ShapeError>(axis >= 0 && axis < x.rank(), "mean", "x {} has no axis {}", x, attributes.axis);
  require<ShapeError>(x[axis] > 0, "mean", "axis {} of x {} is empty", attributes.axis, x);
  std::vector<std::int64_t> extents(x.extents().begin(), x.extents().end());
  extents.erase(extents.begin() + axis);
  return {{in[0].dtype, Shape(std::move(extents))}};
}

std::int64_t macs(const Mean&, std::span<const TensorType>) { return 0; }

void reference(const Mean& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto x = in[0].data<double>();
  const auto y = out[0].mutable_data<double>();
  const Shape& shape = in[0].shape();
  const auto n = static_cast<std::size_t>(shape[attributes.axis]);
  std::size_t inner = 1;
  const int axis = attributes.axis < 0 ? attributes.axis + shape.rank() : attributes.axis;
  for (int i = axis + 1; i < shape.rank(); ++i) inner *= static_cast<std::size_t>(shape[i]);
  for (std::size_t i = 0; i < y.size(); ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < n; ++j) sum += x[(i / inner * n + j) * inner + i % inner];
    y[i] = sum / static_cast<double>(n);
  }
}

Value mean(Value x, int axis) { return x.graph().add_one(Mean{.axis = axis}, {x}); }

}  // namespace weft
