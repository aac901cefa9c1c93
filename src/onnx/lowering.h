// How an operator is told in the words of ONNX (https://onnx.ai/onnx/operators, opset 17).
//
// The lowerings lie here, not in the operators' rooms, because this is an optional component with libraries of its own.
// Each operator of ops.def has one: a lowering that is missing fails to link.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"
#include "onnx/model_writer.h"
#include "ops/ops.h"

namespace weft::onnx_export {

/// One operation on its way into the model: what goes in and comes out, and a way to add ONNX nodes.
class Lowering {
 public:
  /// Names of ONNX values by id of the graph's. `constants` are null for what is computed when the model runs.
  Lowering(ModelWriter& model, const Graph& graph, const Graph::Node& node, Names inputs, Names outputs,
           std::vector<const Tensor*> constants);

  std::size_t inputs() const { return inputs_.size(); }
  /// The name of an input; as an initializer when it is constant.
  std::string in(std::size_t i) const;
  /// Its name alone: names for what is made of it.
  const std::string& name(std::size_t i) const { return inputs_[i]; }
  const Shape& in_shape(std::size_t i) const { return graph_.value(node_.inputs[i]).type.shape; }
  const Shape& out_shape() const { return graph_.value(node_.outputs[0]).type.shape; }
  /// A constant input's values (f32), else null.
  const Tensor* constant(std::size_t i) const { return constants_[i]; }
  /// "backbone.layers.3.att", for errors.
  const std::string& place() const { return node_.place; }
  ModelWriter& model() { return model_; }

  /// Adds a node and returns the name of what it computes, which is not yet the result.
  std::string add(const std::string& type, const Names& inputs, const Attributes& attributes = {});
  /// The same with several outputs.
  Names add_many(const std::string& type, const Names& inputs, std::size_t outputs, const Attributes& attributes);
  /// Adds the node that computes the result.
  void result(const std::string& type, const Names& inputs, const Attributes& attributes = {});
  /// Adds the node that computes one of several results.
  void result_of(std::size_t i, const std::string& type, const Names& inputs, const Attributes& attributes = {});

  /// `x` under another shape.
  std::string reshape(const std::string& x, const Shape& shape);
  void result_reshaped(const std::string& x);
  std::string transpose(const std::string& x, std::vector<std::int64_t> order);

 private:
  std::string fresh(const std::string& type);

  ModelWriter& model_;
  const Graph& graph_;
  const Graph::Node& node_;
  Names inputs_, outputs_;
  std::vector<const Tensor*> constants_;
  int count_ = 0;
};

#define WEFT_OP(Attributes, room) void lower(const weft::Attributes& attributes, Lowering& to);
#include "ops/ops.def"
#undef WEFT_OP

}  // namespace weft::onnx_export
