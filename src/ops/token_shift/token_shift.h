// The token shift of RWKV-4 (arXiv:2305.13048, section 3.1.1), with what came before: each token's place is taken by
// the one before it.
//
//   x         [B,T,C]
//   previous  [B,C]    the token before x; zeros at the beginning
//   y         [B,T,C]  y_0 = previous, y_t = x_{t−1}
//
// So a sequence may be cut anywhere: previous is then the last token before the cut.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct TokenShift {
  static constexpr std::string_view kName = "token_shift";
  static constexpr std::tuple<> kFields{};
  bool operator==(const TokenShift&) const = default;
};

std::vector<TensorType> infer(const TokenShift& attributes, std::span<const TensorType> in);
void reference(const TokenShift& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const TokenShift& attributes, std::span<const TensorType> in);
/// Row by row; x in bf16 gives y in bf16.
std::unique_ptr<Kernel> make_kernel(const TokenShift& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit.
Value token_shift(Value x, Value previous);

}  // namespace weft
