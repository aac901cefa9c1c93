// Matrix products and convolutions.
#include "onnx/lowering.h"

namespace weft::onnx_export {
namespace {

Tensor transposed(const Tensor& matrix) {
  const std::int64_t rows = matrix.shape()[0];
  const std::int64_t columns = matrix.shape()[1];
  Tensor out(DType::kF32, {columns, rows});
  const auto from = matrix.data<float>();
  const auto to = out.mutable_data<float>();
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      to[static_cast<std::size_t>(c * rows + r)] = from[static_cast<std::size_t>(r * columns + c)];
    }
  }
  return out;
}

}  // namespace

// MatMul wants [K,N]; a constant weight is turned here, so that engines can pack it.
void lower(const Linear&, Lowering& to) {
  if (to.in_shape(0).rank() == 2) {
    const Attributes by_rows{{"transB", std::int64_t{1}}};
    return to.result("Gemm", to.inputs() == 3 ? Names{to.in(0), to.in(1), to.in(2)} : Names{to.in(0), to.in(1)},
                     by_rows);
  }
  const std::string weight =
      to.constant(1) ? to.model().constant(to.name(1) + ".transposed", [&] { return transposed(*to.constant(1)); })
                     : to.transpose(to.in(1), {1, 0});
  if (to.inputs() == 2) return to.result("MatMul", {to.in(0), weight});
  to.result("Add", {to.add("MatMul", {to.in(0), weight}), to.in(2)});
}

// Heads as batches: softmax(q·kᵀ · scale) · v with q, k, v as [B,heads,T,D]. The scale goes to q, which is the smaller.
void lower(const Attention& attributes, Lowering& to) {
  const std::int64_t heads = attributes.heads;
  const std::int64_t depth = to.in_shape(0)[2] / heads;
  const auto split = [&](std::size_t i, std::vector<std::int64_t> order) {
    const Shape& x = to.in_shape(i);
    return to.transpose(to.reshape(to.in(i), {x[0], x[1], heads, depth}), std::move(order));
  };
  const std::string scale = to.model().number(static_cast<float>(attributes.factor(depth)));
  const std::string q = to.add("Mul", {split(0, {0, 2, 1, 3}), scale});
  const std::string scores = to.add("MatMul", {q, split(1, {0, 2, 3, 1})});
  const std::string weights = to.add("Softmax", {scores}, {{"axis", std::int64_t{-1}}});
  const std::string mixed = to.add("MatMul", {weights, split(2, {0, 2, 1, 3})});
  to.result_reshaped(to.transpose(mixed, {0, 2, 1, 3}));
}

namespace {

// [B,H,W,C] → [B,C,H,W], as ONNX has it, and back.
std::string channels_first(Lowering& to, const std::string& x) { return to.transpose(x, {0, 3, 1, 2}); }
const Attributes kChannelsLast{{"perm", std::vector<std::int64_t>{0, 2, 3, 1}}};

Attributes conv_attributes(const Shape& weight, std::int64_t stride, std::int64_t padding, std::int64_t groups) {
  return {{"kernel_shape", std::vector<std::int64_t>{weight[2], weight[3]}},
          {"strides", std::vector<std::int64_t>(2, stride)},
          {"pads", std::vector<std::int64_t>(4, padding)},
          {"group", groups}};
}

}  // namespace

void lower(const Conv2d& attributes, Lowering& to) {
  const std::string x = channels_first(to, to.in(0));
  const std::string y = to.add("Conv", to.inputs() == 3 ? Names{x, to.in(1), to.in(2)} : Names{x, to.in(1)},
                               conv_attributes(to.in_shape(1), attributes.stride, attributes.padding, 1));
  to.result("Transpose", {y}, kChannelsLast);
}

// Where each picture has kernels of its own, channels of all pictures are those of one.
void lower(const DepthwiseConv& attributes, Lowering& to) {
  const Shape& shape = to.in_shape(0);
  const Shape& weight = to.in_shape(1);
  const Shape& out = to.out_shape();
  std::string x = channels_first(to, to.in(0));
  if (!is_dynamic(shape, weight)) {
    const std::string y = to.add("Conv", to.inputs() == 3 ? Names{x, to.in(1), to.in(2)} : Names{x, to.in(1)},
                                 conv_attributes(weight, 1, attributes.padding, shape[3]));
    return to.result("Transpose", {y}, kChannelsLast);
  }
  const std::int64_t channels = shape[0] * shape[3];
  x = to.reshape(x, {1, channels, shape[1], shape[2]});
  const std::string kernels = to.reshape(to.in(1), {channels, 1, weight[2], weight[3]});
  std::string y = to.add("Conv", {x, kernels}, conv_attributes(weight, 1, attributes.padding, channels));
  y = to.reshape(y, {out[0], out[3], out[1], out[2]});
  if (to.inputs() == 2) return to.result("Transpose", {y}, kChannelsLast);
  to.result("Add", {to.add("Transpose", {y}, kChannelsLast), to.in(2)});
}

// Tap by tap: the grid, shifted, times the weights of that tap.
void lower(const Involution& attributes, Lowering& to) {
  const Shape& x = to.in_shape(0);
  const std::int64_t k = attributes.kernel_size;
  const std::int64_t groups = to.in_shape(1)[3] / attributes.taps();
  const auto integers = [&](const std::vector<std::int64_t>& values) { return to.model().integers(values); };
  const std::string padded =
      k == 1 ? to.in(0) : to.add("Pad", {to.in(0), integers({0, k / 2, k / 2, 0, 0, k / 2, k / 2, 0})});
  const std::string grid = to.reshape(padded, {x[0], x[1] + k - 1, x[2] + k - 1, groups, x[3] / groups});
  const std::string weights = to.reshape(to.in(1), {x[0], x[1], x[2], groups, attributes.taps()});
  Names terms;
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int64_t tap = i * k + j;
      const std::string of_tap = to.add("Slice", {weights, integers({tap}), integers({tap + 1}), integers({4})});
      const std::string shifted =
          to.add("Slice", {grid, integers({i, j}), integers({i + x[1], j + x[2]}), integers({1, 2})});
      terms.push_back(to.add("Mul", {shifted, of_tap}));
    }
  }
  to.result_reshaped(to.add("Sum", terms));
}

// Zeros at the bottom and the right where the patches do not divide the image; then tokens out of [B,C,H,W].
void lower(const PatchEmbed& attributes, Lowering& to) {
  const Shape& image = to.in_shape(0);
  const Shape& tokens = to.out_shape();  // [B,T,C]
  const std::int64_t below = attributes.grid_height(image) * attributes.patch_h - image[2];
  const std::int64_t right = attributes.grid_width(image) * attributes.patch_w - image[3];
  std::string x = to.in(0);
  if (below > 0 || right > 0) {
    x = to.add("Pad", {x, to.model().integers(std::vector<std::int64_t>{0, 0, 0, 0, 0, 0, below, right})});
  }
  const std::vector<std::int64_t> patch{attributes.patch_h, attributes.patch_w};
  const std::string map = to.add("Conv", to.inputs() == 3 ? Names{x, to.in(1), to.in(2)} : Names{x, to.in(1)},
                                 {{"kernel_shape", patch}, {"strides", patch}});
  to.result("Transpose", {to.reshape(map, {tokens[0], tokens[2], tokens[1]})},
            {{"perm", std::vector<std::int64_t>{0, 2, 1}}});
}

}  // namespace weft::onnx_export
