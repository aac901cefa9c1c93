#include "verify/rounding.h"

#include <algorithm>
#include <cmath>

#include "ops/ops.h"

namespace weft {
namespace {

constexpr double kSafety = 2;

// Mean squares of the relative errors of one operand, as told in the header.
constexpr double kBF16Operand = 0x1p-16 / 3;
double int8_operand(std::int64_t k) {
  const double largest = 2 * std::log(static_cast<double>(std::max<std::int64_t>(k, 2)));  // squared
  return largest / (127.0 * 127.0 * 12);
}

}  // namespace

double rounding_tolerance(const Graph& graph, DType products) {
  if (products == DType::kF32) return 0;
  double squares = 0;
  for (const Graph::Node& node : graph.nodes()) {
    if (node.operation.as<Attention>() || node.operation.as<WindowAttention>()) {
      squares += 2 * 2 * kBF16Operand;
    } else if (node.operation.as<Linear>() || node.operation.as<PatchEmbed>() || node.operation.as<Conv2d>()) {
      const Shape& weight = graph.value(node.inputs[1]).type.shape;  // [N,…], K elements each
      squares += 2 * (products == DType::kBF16 ? kBF16Operand : int8_operand(weight.elements() / weight[0]));
      squares += kBF16Operand;
    } else if (node.operation.as<LayerNorm>() || node.operation.as<BiWkv>() || node.operation.as<CausalWkv>() ||
               node.operation.as<DepthwiseConv>() || node.operation.as<Involution>()) {
      squares += kBF16Operand;
    }
  }
  return kSafety * std::sqrt(squares);
}

}  // namespace weft
