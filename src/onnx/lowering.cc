#include "onnx/lowering.h"

#include <numeric>

#include "core/format.h"

namespace weft::onnx_export {

Lowering::Lowering(ModelWriter& model, const Graph& graph, const Graph::Node& node, Names inputs, Names outputs,
                   std::vector<const Tensor*> constants)
    : model_(model),
      graph_(graph),
      node_(node),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)),
      constants_(std::move(constants)) {}

std::string Lowering::in(std::size_t i) const {
  return constants_[i] ? model_.constant(inputs_[i], *constants_[i]) : inputs_[i];
}

std::string Lowering::fresh(const std::string& type) { return fmt::format("{}/{}_{}", outputs_[0], type, count_++); }

Names Lowering::add_many(const std::string& type, const Names& inputs, std::size_t outputs,
                         const Attributes& attributes) {
  Names names;
  for (std::size_t i = 0; i < outputs; ++i) names.push_back(fresh(type));
  model_.node(type, inputs, names, attributes);
  return names;
}

std::string Lowering::add(const std::string& type, const Names& inputs, const Attributes& attributes) {
  return add_many(type, inputs, 1, attributes).front();
}

void Lowering::result(const std::string& type, const Names& inputs, const Attributes& attributes) {
  model_.node(type, inputs, outputs_, attributes);
}

void Lowering::result_of(std::size_t i, const std::string& type, const Names& inputs, const Attributes& attributes) {
  model_.node(type, inputs, {outputs_[i]}, attributes);
}

namespace {

// Reshape reads an extent of 0 as "as before" unless told otherwise.
Attributes reshape_attributes(const Shape& shape) {
  return shape.elements() == 0 ? Attributes{{"allowzero", std::int64_t{1}}} : Attributes{};
}

}  // namespace

std::string Lowering::reshape(const std::string& x, const Shape& shape) {
  return add("Reshape", {x, model_.integers(shape.extents())}, reshape_attributes(shape));
}

void Lowering::result_reshaped(const std::string& x) {
  result("Reshape", {x, model_.integers(out_shape().extents())}, reshape_attributes(out_shape()));
}

std::string Lowering::transpose(const std::string& x, std::vector<std::int64_t> order) {
  return add("Transpose", {x}, {{"perm", std::move(order)}});
}

}  // namespace weft::onnx_export
