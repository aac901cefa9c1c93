// An ONNX model in the making. The one file that talks to libonnx and protobuf is model_writer.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/threads.h"
#include "weft/tensor.h"

namespace weft::onnx_export {

using Attribute = std::variant<std::int64_t, float, std::string, std::vector<std::int64_t>>;
using Attributes = std::vector<std::pair<std::string, Attribute>>;
using Names = std::vector<std::string>;

class ModelWriter {
 public:
  ModelWriter(const std::string& name, const std::map<std::string, std::string>& metadata);
  ~ModelWriter();
  ModelWriter(const ModelWriter&) = delete;
  ModelWriter& operator=(const ModelWriter&) = delete;

  /// f32 or i64.
  void input(const std::string& name, const TensorType& type);
  void output(const std::string& name, const Shape& shape);
  /// An initializer with these values, f32 or i64. The same name again is the same initializer. Throws UnsupportedError
  /// when the file would pass 2 GiB. Returns the name, as all of these do.
  std::string constant(const std::string& name, const Tensor& values);
  /// The same, `make` called for the first of a name only.
  std::string constant(const std::string& name, FunctionRef<Tensor()> make);
  /// An initializer of integers, one axis; equal ones are shared.
  std::string integers(std::span<const std::int64_t> values);
  /// A number as an initializer without axes; equal ones are shared.
  std::string number(float value);
  void node(const std::string& type, const Names& inputs, const Names& outputs, const Attributes& attributes);

  /// Checks the model with libonnx and returns its bytes.
  std::string finish() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::onnx_export
