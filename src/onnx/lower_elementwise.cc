// What works element by element, and what normalises or averages rows. ONNX broadcasts as weft does.
#include <numbers>

#include "onnx/lowering.h"

namespace weft::onnx_export {

void lower(const Add&, Lowering& to) { to.result("Add", {to.in(0), to.in(1)}); }
void lower(const Mul&, Lowering& to) { to.result("Mul", {to.in(0), to.in(1)}); }
void lower(const Scale& attributes, Lowering& to) {
  to.result("Mul", {to.in(0), to.model().number(attributes.factor)});
}
void lower(const Sigmoid&, Lowering& to) { to.result("Sigmoid", {to.in(0)}); }
void lower(const Tanh&, Lowering& to) { to.result("Tanh", {to.in(0)}); }

// As PyTorch writes it, x / √2 first, so that engines recognise it: x · (erf(x/√2) + 1) · 1/2.
void lower(const Gelu&, Lowering& to) {
  const std::string erf = to.add("Erf", {to.add("Div", {to.in(0), to.model().number(std::numbers::sqrt2_v<float>)})});
  const std::string twice = to.add("Mul", {to.in(0), to.add("Add", {erf, to.model().number(1)})});
  to.result("Mul", {twice, to.model().number(0.5F)});
}

void lower(const Exp&, Lowering& to) { to.result("Exp", {to.in(0)}); }
void lower(const Clamp& attributes, Lowering& to) {
  to.result("Clip", {to.in(0), to.model().number(attributes.low), to.model().number(attributes.high)});
}

// x·mix + shifted·(1 − mix); engines fold 1 − mix where mix is constant.
void lower(const Lerp&, Lowering& to) {
  const std::string rest = to.add("Sub", {to.model().number(1), to.in(2)});
  to.result("Add", {to.add("Mul", {to.in(0), to.in(2)}), to.add("Mul", {to.in(1), rest})});
}

void lower(const Relu&, Lowering& to) { to.result("Relu", {to.in(0)}); }
void lower(const Silu&, Lowering& to) { to.result("Mul", {to.in(0), to.add("Sigmoid", {to.in(0)})}); }

void lower(const SquaredRelu&, Lowering& to) {
  const std::string positive = to.add("Relu", {to.in(0)});
  to.result("Mul", {positive, positive});
}

void lower(const LayerNorm& attributes, Lowering& to) {
  to.result("LayerNormalization", {to.in(0), to.in(1), to.in(2)},
            {{"axis", std::int64_t{-1}}, {"epsilon", attributes.eps}});
}

void lower(const BatchMoments&, Lowering&) { fail<UnsupportedError>("onnx", "a graph for training is not exported"); }

// Of constants alone but for x: engines fold the factor.
void lower(const BatchNorm& attributes, Lowering& to) {
  const std::string variance = to.add("Add", {to.in(4), to.model().number(attributes.eps)});
  const std::string factor = to.add("Div", {to.in(1), to.add("Sqrt", {variance})});
  const std::string centred = to.add("Sub", {to.in(0), to.in(3)});
  to.result("Add", {to.add("Mul", {centred, factor}), to.in(2)});
}

void lower(const Mean& attributes, Lowering& to) {
  to.result("ReduceMean", {to.in(0)},
            {{"axes", std::vector<std::int64_t>{attributes.axis}}, {"keepdims", std::int64_t{0}}});
}

}  // namespace weft::onnx_export
