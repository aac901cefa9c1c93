// Attention free attention: e^bias for each pair of tokens, times [e^k·v | e^k]. ONNX has no logarithmic sums to fall
// back on: the largest key and the largest bias of a row are taken off, and where keys and biases together span more
// than 87 what ONNX computes may be NaN.
#include <limits>

#include "core/format.h"
#include "onnx/lowering.h"

namespace weft::onnx_export {
namespace {

Tensor of_pairs(DType dtype, std::int64_t tokens) { return Tensor::zeros({dtype, {tokens, tokens}}); }

// Filters [F,h,w] as what they add for each pair of tokens, [F,T,T].
std::string spread_out(Lowering& to, const Aft& a) {
  const Shape& filters = to.in_shape(2);
  const std::int64_t tokens = to.out_shape()[1];
  const std::int64_t width = a.width > 0 ? a.width : tokens;
  const std::int64_t taps = filters[1] * filters[2];
  std::vector<std::int64_t> entries;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t i = 0; i < tokens; ++i) {
      const std::int64_t row = i / width - t / width + filters[1] / 2;
      const std::int64_t column = i % width - t % width + (a.causal ? filters[2] - 1 : filters[2] / 2);
      const bool inside = row >= 0 && row < filters[1] && column >= 0 && column < filters[2];
      entries.push_back(inside ? row * filters[2] + column : taps);
    }
  }
  const std::string padded = to.add(
      "Pad", {to.reshape(to.in(2), {filters[0], taps}), to.model().integers(std::vector<std::int64_t>{0, 0, 0, 1})});
  const std::string bias = to.add("Gather", {padded, to.model().integers(entries)}, {{"axis", std::int64_t{1}}});
  return to.reshape(bias, {filters[0], tokens, tokens});
}

// [T,T] of a table, 0 beyond the window.
std::string part_of_table(Lowering& to, const Aft& a) {
  const std::int64_t tokens = to.out_shape()[1];
  std::string table = to.in(2);
  if (to.in_shape(2)[0] > tokens) {
    const auto integers = [&](std::int64_t a0, std::int64_t a1) {
      return to.model().integers(std::vector<std::int64_t>{a0, a1});
    };
    table = to.add("Slice", {table, integers(0, 0), integers(tokens, tokens), integers(0, 1)});
  }
  if (a.window == 0 || a.window >= tokens) return table;
  const std::string near = to.model().constant(fmt::format("aft_window/{}/{}", tokens, a.window), [&] {
    Tensor mask = of_pairs(DType::kI64, tokens);
    for (std::int64_t i = 0; i < tokens * tokens; ++i) {
      mask.mutable_data<std::int64_t>()[static_cast<std::size_t>(i)] = std::abs(i / tokens - i % tokens) < a.window;
    }
    return mask;
  });
  constexpr std::int64_t kBool = 9;  // TensorProto.DataType
  return to.add("Where", {to.add("Cast", {near}, {{"to", kBool}}), table, to.model().number(0)});
}

// 0, or −∞ for a token that comes later.
std::string causal_mask(Lowering& to) {
  const std::int64_t tokens = to.out_shape()[1];
  return to.model().constant(fmt::format("aft_causal/{}", tokens), [&] {
    Tensor mask = of_pairs(DType::kF32, tokens);
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t i = t + 1; i < tokens; ++i) {
        mask.mutable_data<float>()[static_cast<std::size_t>(t * tokens + i)] = -std::numeric_limits<float>::infinity();
      }
    }
    return mask;
  });
}

// e^{x − m}, m the largest along an axis.
std::string weights(Lowering& to, const std::string& x, std::int64_t axis) {
  const std::string largest =
      to.add("ReduceMax", {x}, {{"axes", std::vector<std::int64_t>{axis}}, {"keepdims", std::int64_t{1}}});
  return to.add("Exp", {to.add("Sub", {x, largest})});
}

}  // namespace

void lower(const Aft& a, Lowering& to) {
  const Shape& v = to.out_shape();
  const std::int64_t keys = to.in_shape(0)[2];
  const Shape by_key{v[0], v[1], keys, v[2] / keys};
  const Shape one_each{v[0], v[1], keys, 1};
  const std::string values = to.reshape(to.in(1), by_key);
  if (to.inputs() == 2 && !a.causal) {
    const std::string share = to.add("Softmax", {to.in(0)}, {{"axis", std::int64_t{1}}});
    const std::string sum = to.add(
        "ReduceSum",
        {to.add("Mul", {to.reshape(share, one_each), values}), to.model().integers(std::vector<std::int64_t>{1})},
        {{"keepdims", std::int64_t{1}}});
    return to.result_reshaped(
        to.add("Expand", {sum, to.model().integers(std::vector<std::int64_t>{v[0], v[1], keys, v[2] / keys})}));
  }
  const bool filtered = to.inputs() == 3 && to.in_shape(2).rank() == 3;
  const std::int64_t filters = filtered ? to.in_shape(2)[0] : 1;
  std::string pairs = to.inputs() == 2 ? causal_mask(to) : filtered ? spread_out(to, a) : part_of_table(to, a);
  if (a.causal && to.inputs() == 3) pairs = to.add("Add", {pairs, causal_mask(to)});
  pairs = weights(to, pairs, -1);
  const auto summed = [&](const std::string& x, std::int64_t channels, const Shape& shape) {
    const std::string by_filter = to.transpose(to.reshape(x, {v[0], v[1], filters, channels / filters}), {0, 2, 1, 3});
    return to.reshape(to.transpose(to.add("MatMul", {pairs, by_filter}), {0, 2, 1, 3}), shape);
  };
  const std::string of_keys = to.reshape(weights(to, to.in(0), 1), one_each);
  const std::string numerators = summed(to.add("Mul", {of_keys, values}), v[2], by_key);
  to.result_reshaped(to.add("Div", {numerators, summed(of_keys, keys, one_each)}));
}

}  // namespace weft::onnx_export
