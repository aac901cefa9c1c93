#include "ops/kernels.h"

#include <typeindex>
#include <unordered_map>

#include "core/format.h"
#include "ops/ops.h"

namespace weft {
namespace {

using Maker = std::unique_ptr<Kernel> (*)(const Operation&, const KernelRequest&);

template <class A>
std::unique_ptr<Kernel> make(const Operation& operation, const KernelRequest& request) {
  return make_kernel(*operation.as<A>(), request);
}

const std::unordered_map<std::type_index, Maker>& makers() {
  static const std::unordered_map<std::type_index, Maker> table = {
#define WEFT_OP(Attributes, room) {typeid(Attributes), &make<Attributes>},
#include "ops/ops.def"
#undef WEFT_OP
  };
  return table;
}

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Operation& operation, const KernelRequest& request) {
  const auto maker = makers().find(operation.type());
  require<UnsupportedError>(maker != makers().end(), operation.name(), "this operator has no line in ops.def");
  for (const auto& types : {request.in, request.out}) {
    for (const TensorType& type : types) {
      if (type.dtype == DType::kI64 && operation.as<Embedding>()) continue;  // tokens, which infer has seen to
      require<UnsupportedError>(type.dtype == DType::kF32, operation.name(), "the CPU engine computes in f32, got {}",
                                type);
    }
  }
  return maker->second(operation, request);
}

std::unique_ptr<Kernel> make_lone_kernel(const Operation& operation, const KernelRequest& request) {
  std::unique_ptr<Kernel> kernel = make_kernel(operation, request);
  if (RowKernel* rows = kernel->by_rows()) rows->prepare_to_run_alone(request);
  if (PartedKernel* parts = kernel->by_parts()) parts->prepare();
  return kernel;
}

}  // namespace weft
