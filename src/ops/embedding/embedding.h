// Rows of a table by their numbers: tokens as vectors.
//
//   tokens  [B,T]    whole numbers (kI64) in 0 … V − 1
//   table   [V,C]
//   y       [B,T,C]  y[b,t] = table[tokens[b,t]]; NaN where there is no such row
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct Embedding {
  static constexpr std::string_view kName = "embedding";
  static constexpr std::tuple kFields{};
  bool operator==(const Embedding&) const = default;
};

std::vector<TensorType> infer(const Embedding& attributes, std::span<const TensorType> in);
void reference(const Embedding& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Embedding& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Embedding& attributes, const KernelRequest& request);

/// Throws ShapeError when tokens are no whole numbers [B,T] or the table is no [V,C].
Value embedding(Value tokens, Value table);

}  // namespace weft
