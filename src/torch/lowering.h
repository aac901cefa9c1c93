// How an operator is told in libtorch's tensors.
//
// The lowerings lie here, not in the operators' rooms, because this is an optional component with libraries of its own.
// Each operator of ops.def has one: a lowering that is missing fails to link. They are differentiable, and do not
// depend on the device or the (floating) element type.
#pragma once

#include <torch/torch.h>

#include <initializer_list>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/threads.h"
#include "ops/ops.h"

namespace weft::torch_engine {

using Inputs = std::span<const at::Tensor>;

/// What else a lowering is told.
struct Setting {
  const Shape& out;  // the (first) result's shape
  const std::shared_ptr<const Workers>& workers;
};

/// What a lowering gives: one tensor, or one for each of the operator's results.
struct Results {
  Results(at::Tensor one) : tensors{std::move(one)} {}  // NOLINT(google-explicit-constructor): nearly all have one
  Results(std::initializer_list<at::Tensor> several) : tensors(several) {}
  std::vector<at::Tensor> tensors;
};

#define WEFT_OP(Attributes, room) Results lower(const weft::Attributes& attributes, Inputs in, const Setting& setting);
#include "ops/ops.def"
#undef WEFT_OP

/// For libtorch's arguments of extents.
inline at::IntArrayRef extents(const Shape& shape) { return {shape.extents().data(), shape.extents().size()}; }

}  // namespace weft::torch_engine
