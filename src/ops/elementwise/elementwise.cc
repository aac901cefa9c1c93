#include "ops/elementwise/elementwise.h"

#include <array>

#include "core/format.h"
#include "ops/elementwise/broadcast.h"

namespace weft {
namespace {

template <class A>
Shape result_shape(std::span<const TensorType> in) {
  return broadcast_shape(A::kName, in);
}

template <>
Shape result_shape<Lerp>(std::span<const TensorType> in) {
  const Shape& x = in[0].shape;
  require<ShapeError>(in[1].shape == x, "lerp", "shifted must be like x {}, got {}", x, in[1].shape);
  require<ShapeError>(broadcast_shape("lerp", in) == x, "lerp", "mix {} must broadcast to x {}", in[2].shape, x);
  return x;
}

}  // namespace

std::vector<TensorType> infer(const Elementwise& attributes, std::span<const TensorType> in) {
  return std::visit(
      [&]<class A>(const A&) -> std::vector<TensorType> {
        require<ShapeError>(in.size() == A::kArity, A::kName, "takes {} inputs, got {}", A::kArity, in.size());
        for (const TensorType& type : in) {
          require<ShapeError>(type.dtype == in[0].dtype, A::kName, "inputs must have one element type, got {}",
                              fmt::join(in, " and "));
        }
        return {{in[0].dtype, result_shape<A>(in)}};
      },
      attributes);
}

std::int64_t macs(const Elementwise&, std::span<const TensorType>) { return 0; }

void reference(const Elementwise& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const Shape& shape = out[0].shape();
  // The element of input i that belongs to element `flat` of the result.
  const auto element = [&](std::size_t i, std::int64_t flat) {
    std::int64_t offset = 0;
    std::int64_t stride = 1;
    for (int axis = -1; axis >= -shape.rank(); --axis) {
      if (-axis <= in[i].shape().rank()) {
        const std::int64_t own = in[i].shape()[axis];
        if (own > 1) offset += flat % shape[axis] * stride;
        stride *= own;
      }
      flat /= shape[axis];
    }
    return in[i].data<double>()[static_cast<std::size_t>(offset)];
  };
  const auto y = out[0].mutable_data<double>();
  std::visit(
      [&]<class A>(const A& op) {
        for (std::int64_t flat = 0; flat < shape.elements(); ++flat) {
          std::array<double, A::kArity> values;
          for (std::size_t i = 0; i < A::kArity; ++i) values[i] = element(i, flat);
          y[static_cast<std::size_t>(flat)] = std::apply([&](auto... value) { return op.apply(value...); }, values);
        }
      },
      attributes);
}

Activation activation_of(const Operation& operation) {
  return operation.as<SquaredRelu>() ? Activation::kSquaredRelu : Activation::kNone;
}

Value add(Value a, Value b) { return a.graph().add_one(Add{}, {a, b}); }
Value mul(Value a, Value b) { return a.graph().add_one(Mul{}, {a, b}); }
Value scale(Value x, float factor) { return x.graph().add_one(Scale{.factor = factor}, {x}); }
Value lerp(Value x, Value shifted, Value mix) { return x.graph().add_one(Lerp{}, {x, shifted, mix}); }
Value sigmoid(Value x) { return x.graph().add_one(Sigmoid{}, {x}); }
Value tanh(Value x) { return x.graph().add_one(Tanh{}, {x}); }
Value relu(Value x) { return x.graph().add_one(Relu{}, {x}); }
Value squared_relu(Value x) { return x.graph().add_one(SquaredRelu{}, {x}); }
Value gelu(Value x) { return x.graph().add_one(Gelu{}, {x}); }
Value exp(Value x) { return x.graph().add_one(Exp{}, {x}); }
Value clamp(Value x, float low, float high) { return x.graph().add_one(Clamp{.low = low, .high = high}, {x}); }
Value silu(Value x) { return x.graph().add_one(Silu{}, {x}); }

}  // namespace weft
