// Operators that move elements and compute nothing.
//
//   reshape  the same elements, row by row, under another shape; shares its input's memory where an engine can
//   permute  y.shape[i] = x.shape[order[i]], as numpy.transpose(x, order)
//   pad      `count` zeros behind the last element of one axis
//   slice    x[begin:end] along one axis
//   concat   two or more tensors one after the other along one axis; inputs of batch (axis 0) extent 1 are repeated to
//            the others' batch, as a class token [1,1,C] is before patch tokens [B,T,C]
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

struct Pad {
  int axis = 1;  // from 0; a negative one counts from the end, here and below
  std::int64_t count = 0;

  static constexpr std::string_view kName = "pad";
  static constexpr std::tuple kFields{Field{"axis", &Pad::axis}, Field{"count", &Pad::count}};
  bool operator==(const Pad&) const = default;
};

struct Slice {
  int axis = 1;
  std::int64_t begin = 0;
  std::int64_t end = 0;  // one past the last

  static constexpr std::string_view kName = "slice";
  static constexpr std::tuple kFields{Field{"axis", &Slice::axis}, Field{"begin", &Slice::begin},
                                      Field{"end", &Slice::end}};
  bool operator==(const Slice&) const = default;
};

struct Concat {
  int axis = 1;  // not the batch axis 0

  static constexpr std::string_view kName = "concat";
  static constexpr std::tuple kFields{Field{"axis", &Concat::axis}};
  bool operator==(const Concat&) const = default;
};

std::vector<TensorType> infer(const Reshape& attributes, std::span<const TensorType> in);
void reference(const Reshape& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Reshape& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Reshape& attributes, const KernelRequest& request);

std::vector<TensorType> infer(const Permute& attributes, std::span<const TensorType> in);
void reference(const Permute& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Permute& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Permute& attributes, const KernelRequest& request);

std::vector<TensorType> infer(const Pad& attributes, std::span<const TensorType> in);
void reference(const Pad& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Pad& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Pad& attributes, const KernelRequest& request);

std::vector<TensorType> infer(const Slice& attributes, std::span<const TensorType> in);
void reference(const Slice& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Slice& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Slice& attributes, const KernelRequest& request);

std::vector<TensorType> infer(const Concat& attributes, std::span<const TensorType> in);
void reference(const Concat& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Concat& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Concat& attributes, const KernelRequest& request);

/// Throws ShapeError when the number of elements differs.
Value reshape(Value x, Shape shape);
/// Throws ShapeError when `order` does not name each axis of x once.
Value permute(Value x, std::vector<int> order);
/// x itself where `count` is 0. Throws ShapeError when x has no such axis or `count` is negative.
Value pad(Value x, int axis, std::int64_t count);
/// Throws ShapeError when x has no such axis or the range is not within it.
Value slice(Value x, int axis, std::int64_t begin, std::int64_t end);
/// Throws ShapeError when the extents of the other axes differ (but for batches of 1) or there is no such axis.
Value concat(std::span<const Value> parts, int axis);

}  // namespace weft
