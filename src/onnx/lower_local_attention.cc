// Attention within windows of a grid, and norms for it.
#include <limits>

#include "core/format.h"
#include "onnx/lowering.h"

namespace weft::onnx_export {
namespace {

// The grid moved along `axis`, what leaves it coming in again at the other side: y[i] = x[(i + steps) mod extent].
std::string rolled(Lowering& to, const std::string& x, std::int64_t axis, std::int64_t extent, std::int64_t steps) {
  if (steps == 0) return x;
  const Names parts = to.add_many("Split", {x, to.model().integers(std::vector<std::int64_t>{steps, extent - steps})},
                                  2, {{"axis", axis}});
  return to.add("Concat", {parts[1], parts[0]}, {{"axis", axis}});
}

// From [B,T,C] to [B,windows,heads,N,D], or with the last two the other way round.
std::string windows_of(Lowering& to, std::size_t input, const WindowAttention& a, bool transposed) {
  const Shape& x = to.in_shape(input);
  std::string grid = to.reshape(to.in(input), {x[0], a.height, a.width, x[2]});
  grid = rolled(to, grid, 1, a.height, a.shift_h);
  grid = rolled(to, grid, 2, a.width, a.shift_w);
  const std::int64_t depth = x[2] / a.heads;
  const std::string parts =
      to.reshape(grid, {x[0], a.height / a.window_h, a.window_h, a.width / a.window_w, a.window_w, a.heads, depth});
  if (transposed) {
    return to.reshape(to.transpose(parts, {0, 1, 3, 5, 6, 2, 4}),
                      {x[0], a.windows(), a.heads, depth, a.window_tokens()});
  }
  return to.reshape(to.transpose(parts, {0, 1, 3, 5, 2, 4, 6}), {x[0], a.windows(), a.heads, a.window_tokens(), depth});
}

// How far each query lies from each key along an axis of the window, from 0: rows, or columns, of the table.
std::vector<std::int64_t> distances(std::int64_t side) {
  std::vector<std::int64_t> distances;
  for (std::int64_t query = 0; query < side; ++query) {
    for (std::int64_t key = 0; key < side; ++key) distances.push_back(query - key + side - 1);
  }
  return distances;
}

// [heads,N,N] of the table, axis by axis: a list of its entries for all pairs of tokens would be as large as the mask.
std::string window_bias(Lowering& to, const WindowAttention& a) {
  const std::int64_t height = a.window_h;
  const std::int64_t width = a.window_w;
  std::string bias = to.reshape(to.in(3), {a.heads, 2 * height - 1, 2 * width - 1});
  bias = to.add("Gather", {bias, to.model().integers(distances(height))}, {{"axis", std::int64_t{1}}});
  bias = to.add("Gather", {bias, to.model().integers(distances(width))}, {{"axis", std::int64_t{2}}});
  bias = to.transpose(to.reshape(bias, {a.heads, height, height, width, width}), {0, 1, 3, 2, 4});
  return to.reshape(bias, {a.heads, a.window_tokens(), a.window_tokens()});
}

// [windows,1,N,N]
Tensor window_mask(const WindowAttention& a) {
  const std::int64_t tokens = a.window_tokens();
  Tensor mask(DType::kF32, {a.windows(), 1, tokens, tokens});
  auto* to = mask.mutable_data<float>().data();
  for (std::int64_t window = 0; window < a.windows(); ++window) {
    const auto region = [&](std::int64_t position) {
      return std::pair(position / a.window_w < a.rows_before(window), position % a.window_w < a.columns_before(window));
    };
    for (std::int64_t query = 0; query < tokens; ++query) {
      for (std::int64_t key = 0; key < tokens; ++key) {
        *to++ = region(query) != region(key) ? static_cast<float>(kAcrossBorder) : 0.0F;
      }
    }
  }
  return mask;
}

// Whether a position's neighbours are in the grid: 0, or else −∞; [height,width,k·k].
Tensor outside_mask(const SlidingAttention& a) {
  const std::int64_t reach = (a.kernel_size - 1) / 2;
  Tensor mask(DType::kF32, {a.height, a.width, std::int64_t{a.kernel_size} * a.kernel_size});
  auto* to = mask.mutable_data<float>().data();
  for (std::int64_t y = 0; y < a.height; ++y) {
    for (std::int64_t x = 0; x < a.width; ++x) {
      for (std::int64_t row = y - reach; row <= y + reach; ++row) {
        for (std::int64_t column = x - reach; column <= x + reach; ++column) {
          const bool inside = row >= 0 && row < a.height && column >= 0 && column < a.width;
          *to++ = inside ? 0.0F : -std::numeric_limits<float>::infinity();
        }
      }
    }
  }
  return mask;
}

}  // namespace

void lower(const WindowAttention& a, Lowering& to) {
  const Shape& x = to.out_shape();
  const std::string scale = to.model().number(static_cast<float>(a.factor(x[2] / a.heads)));
  const std::string q = to.add("Mul", {windows_of(to, 0, a, false), scale});
  std::string scores = to.add("MatMul", {q, windows_of(to, 1, a, true)});
  if (to.inputs() == 4) scores = to.add("Add", {scores, window_bias(to, a)});
  if (a.shift_h > 0 || a.shift_w > 0) {
    const std::string name =
        fmt::format("window_mask/{}x{}/{}x{}/{}x{}", a.height, a.width, a.window_h, a.window_w, a.shift_h, a.shift_w);
    scores = to.add("Add", {scores, to.model().constant(name, [&] { return window_mask(a); })});
  }
  const std::string weights = to.add("Softmax", {scores}, {{"axis", std::int64_t{-1}}});
  const std::string mixed =
      to.reshape(to.add("MatMul", {weights, windows_of(to, 2, a, false)}),
                 {x[0], a.height / a.window_h, a.width / a.window_w, a.heads, a.window_h, a.window_w, x[2] / a.heads});
  std::string grid = to.reshape(to.transpose(mixed, {0, 1, 4, 2, 5, 3, 6}), {x[0], a.height, a.width, x[2]});
  grid = rolled(to, grid, 1, a.height, (a.height - a.shift_h) % a.height);
  grid = rolled(to, grid, 2, a.width, (a.width - a.shift_w) % a.width);
  to.result_reshaped(grid);
}

// Each neighbour is a slice of the padded grid; the slices are an axis of their own.
void lower(const SlidingAttention& a, Lowering& to) {
  const Shape& x = to.out_shape();
  const std::int64_t side = a.kernel_size;
  const std::int64_t reach = (side - 1) / 2;
  const std::int64_t depth = x[2] / a.heads;
  const auto neighbourhoods = [&](std::size_t input) {  // [B,H,W,heads,k·k,D]
    const std::string grid = to.reshape(to.in(input), {x[0], a.height, a.width, a.heads, 1, depth});
    const std::string padded = to.add(
        "Pad",
        {grid, to.model().integers(std::vector<std::int64_t>{0, reach, reach, 0, 0, 0, 0, reach, reach, 0, 0, 0})});
    Names parts;
    for (std::int64_t dy = 0; dy < side; ++dy) {
      for (std::int64_t dx = 0; dx < side; ++dx) {
        parts.push_back(to.add("Slice", {padded, to.model().integers(std::vector{dy, dx}),
                                         to.model().integers(std::vector{dy + a.height, dx + a.width}),
                                         to.model().integers(std::vector<std::int64_t>{1, 2})}));
      }
    }
    return to.add("Concat", parts, {{"axis", std::int64_t{4}}});
  };
  const std::string scale = to.model().number(static_cast<float>(a.factor(depth)));
  const std::string q = to.reshape(to.add("Mul", {to.in(0), scale}), {x[0], a.height, a.width, a.heads, 1, depth});
  std::string scores =
      to.add("MatMul", {q, to.transpose(neighbourhoods(1), {0, 1, 2, 3, 5, 4})});  // [B,H,W,heads,1,k·k]
  if (to.inputs() == 4) scores = to.add("Add", {scores, to.reshape(to.in(3), {1, 1, 1, a.heads, 1, side * side})});
  if (a.border == SlidingBorder::kExcluded) {
    const std::string mask =
        to.model().constant(fmt::format("outside/{}x{}/{}", a.height, a.width, side), [&] { return outside_mask(a); });
    scores = to.add("Add", {scores, to.reshape(mask, {1, a.height, a.width, 1, 1, side * side})});
  }
  const std::string weights = to.add("Softmax", {scores}, {{"axis", std::int64_t{-1}}});
  to.result_reshaped(to.add("MatMul", {weights, neighbourhoods(2)}));
}

void lower(const L2Norm& attributes, Lowering& to) {
  const Shape& x = to.out_shape();
  const std::int64_t channels = x[-1] / attributes.heads;
  const std::string rows = to.reshape(to.in(0), {x.elements() / std::max<std::int64_t>(channels, 1), channels});
  const std::string length = to.add("ReduceL2", {rows}, {{"axes", std::vector<std::int64_t>{-1}}});
  to.result_reshaped(to.add("Div", {rows, to.add("Max", {length, to.model().number(attributes.eps)})}));
}

}  // namespace weft::onnx_export
