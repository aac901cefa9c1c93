#include "onnx/model_writer.h"

#include <onnx/checker.h>
#include <onnx/onnx_pb.h>

#include <bit>
#include <limits>
#include <set>

#include "core/format.h"
#include "weft/weft.h"

namespace weft::onnx_export {
namespace {

static_assert(std::endian::native == std::endian::little, "raw_data is little-endian");

// Protobuf counts bytes in 31 bits.
constexpr std::size_t kMaxBytes = std::numeric_limits<std::int32_t>::max();

onnx::TensorProto::DataType element_type(DType dtype) {
  return dtype == DType::kI64 ? onnx::TensorProto::INT64 : onnx::TensorProto::FLOAT;
}

void set_type(onnx::ValueInfoProto& value, const std::string& name, const TensorType& of) {
  value.set_name(name);
  auto* const type = value.mutable_type()->mutable_tensor_type();
  type->set_elem_type(element_type(of.dtype));
  type->mutable_shape();  // there for a scalar, too
  for (const std::int64_t extent : of.shape.extents()) type->mutable_shape()->add_dim()->set_dim_value(extent);
}

void set_value(onnx::AttributeProto& attribute, std::int64_t value) {
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_i(value);
}
void set_value(onnx::AttributeProto& attribute, float value) {
  attribute.set_type(onnx::AttributeProto::FLOAT);
  attribute.set_f(value);
}
void set_value(onnx::AttributeProto& attribute, const std::string& value) {
  attribute.set_type(onnx::AttributeProto::STRING);
  attribute.set_s(value);
}
void set_value(onnx::AttributeProto& attribute, const std::vector<std::int64_t>& value) {
  attribute.set_type(onnx::AttributeProto::INTS);
  attribute.mutable_ints()->Add(value.begin(), value.end());
}

void require_room(std::size_t bytes, const std::string& name) {
  require<UnsupportedError>(bytes <= kMaxBytes, "onnx",
                            "{} would have {:.2f} GiB or more; an ONNX file holds less than 2 GiB; choose a smaller "
                            "model or size",
                            name, static_cast<double>(bytes) / (1 << 30));
}

}  // namespace

struct ModelWriter::Impl {
  onnx::ModelProto model;
  std::set<std::string, std::less<>> constants;
  std::size_t bytes = 0;  // of all constants
};

ModelWriter::ModelWriter(const std::string& name, const std::map<std::string, std::string>& metadata)
    : impl_(std::make_unique<Impl>()) {
  constexpr std::int64_t kOpset = 17;
  constexpr std::int64_t kIrVersion = 8;  // the one that came with this opset
  onnx::ModelProto& model = impl_->model;
  model.set_ir_version(kIrVersion);
  model.set_producer_name("weft");
  model.set_producer_version(version());
  onnx::OperatorSetIdProto* const opset = model.add_opset_import();
  opset->set_domain("");
  opset->set_version(kOpset);
  model.mutable_graph()->set_name(name);
  for (const auto& [key, value] : metadata) {
    onnx::StringStringEntryProto* const entry = model.add_metadata_props();
    entry->set_key(key);
    entry->set_value(value);
  }
}

ModelWriter::~ModelWriter() = default;

void ModelWriter::input(const std::string& name, const TensorType& type) {
  set_type(*impl_->model.mutable_graph()->add_input(), name, type);
}

void ModelWriter::output(const std::string& name, const Shape& shape) {
  set_type(*impl_->model.mutable_graph()->add_output(), name, {DType::kF32, shape});
}

std::string ModelWriter::constant(const std::string& name, const Tensor& values) {
  return constant(name, [&] { return values; });
}

std::string ModelWriter::constant(const std::string& name, FunctionRef<Tensor()> make) {
  if (!impl_->constants.insert(name).second) return name;
  const Tensor values = make();
  impl_->bytes += values.bytes();
  require_room(impl_->bytes, impl_->model.graph().name());
  onnx::TensorProto& tensor = *impl_->model.mutable_graph()->add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(element_type(values.dtype()));
  for (const std::int64_t extent : values.shape().extents()) tensor.add_dims(extent);
  tensor.set_raw_data(values.raw(), values.bytes());
  return name;
}

std::string ModelWriter::integers(std::span<const std::int64_t> values) {
  Tensor tensor(DType::kI64, Shape{static_cast<std::int64_t>(values.size())});
  std::ranges::copy(values, tensor.mutable_data<std::int64_t>().begin());
  return constant(fmt::format("integers/{}", fmt::join(values, ",")), tensor);
}

std::string ModelWriter::number(float value) {
  return constant(fmt::format("number/{}", value), Tensor::of(std::span(&value, 1), Shape{}));
}

void ModelWriter::node(const std::string& type, const Names& inputs, const Names& outputs,
                       const Attributes& attributes) {
  onnx::NodeProto& node = *impl_->model.mutable_graph()->add_node();
  node.set_op_type(type);
  node.set_name(outputs.front());
  for (const std::string& name : inputs) node.add_input(name);
  for (const std::string& name : outputs) node.add_output(name);
  for (const auto& [name, value] : attributes) {
    onnx::AttributeProto& attribute = *node.add_attribute();
    attribute.set_name(name);
    std::visit([&](const auto& held) { set_value(attribute, held); }, value);
  }
}

std::string ModelWriter::finish() const {
  const onnx::ModelProto& model = impl_->model;
  require_room(model.ByteSizeLong(), model.graph().name());
  try {
    onnx::checker::check_model(model);
  } catch (const onnx::checker::ValidationError& error) {
    fail<Error>("onnx", "libonnx does not accept what was made of {}: {}", model.graph().name(),
                printable(error.what()));
  }
  std::string bytes;
  require<Error>(model.SerializeToString(&bytes), "onnx", "{} cannot be serialised", model.graph().name());
  return bytes;
}

}  // namespace weft::onnx_export
