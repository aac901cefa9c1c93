// Operators that move elements and compute nothing.
//
//   reshape  the same elements, row by row, under another shape; shares its input's memory where an engine can
//   permute  y.shape[i] = x.shape[order[i]], as numpy.transpose(x, order)
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct Reshape {
  Shape shape;

  static constexpr std::string_view kName = "reshape";
  static constexpr std::tuple kFields{Field{"shape", &Reshape::shape}};
  static constexpr bool kIsView = true;
  bool operator==(const Reshape&) const = default;
};

struct Permute {
  std::vector<int> order;

  static constexpr std::string_view kName = "permute";
  static constexpr std::tuple kFields{Field{"order", &Permute::order}};
  bool operator==(const Permute&) const = default;
};

std::vector<TensorType> infer(const Reshape& attributes, std::span<const TensorType> in);
void reference(const Reshape& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Reshape& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Reshape& attributes, const KernelRequest& request);

std::vector<TensorType> infer(const Permute& attributes, std::span<const TensorType> in);
void reference(const Permute& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Permute& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Permute& attributes, const KernelRequest& request);

/// Throws ShapeError when the number of elements differs.
Value reshape(Value x, Shape shape);
/// Throws ShapeError when `order` does not name each axis of x once.
Value permute(Value x, std::vector<int> order);

}  // namespace weft
