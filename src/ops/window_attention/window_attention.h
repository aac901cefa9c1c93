// Softmax attention within windows of a grid, with a relative position bias and a cyclic shift (Liu et al., Swin
// Transformer, 2021, arXiv:2103.14030, eq. 4 and section 3.2; a window as large as the grid, or one row or column of
// it, with a bias that decays with the distance, is the attention of Fan et al., RMT, 2023, arXiv:2309.11523, eq. 6 …
// 8):
//
//   y = softmax(q·kᵀ · scale + bias + mask) · v      for each window of each picture and each head, over its keys
//
//   q     [B,T,C]     T = height · width, row by row
//   k, v  [B,T,C]
//   bias  [heads,(2·window_h − 1)·(2·window_w − 1)]   or absent; for a query at (y,x) and a key at (y',x') of the
//                     window the entry (y − y' + window_h − 1)·(2·window_w − 1) + (x − x' + window_w − 1)
//   y     [B,T,C]     head h has the channels [h·D, (h+1)·D), D = C/heads
//
// With a shift the windows begin at (shift_h,shift_w), and the last ones go on at the grid's other side; the mask is
// −100 between a query and a key that the border of the grid parts, and 0 elsewhere.
//
// The kernel never stores the scores of a whole picture. Precisions bf16 and i8 multiply q, k, v and the probabilities
// of large windows in bf16, those of small ones in f32; scores, maxima, sums and accumulators are f32.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct WindowAttention {
  int heads = 1;
  float scale = 0;   // of the scores; 0 stands for 1/√D
  int height = 0;    // of the grid, in tokens
  int width = 0;     //
  int window_h = 1;  // a divisor of the height
  int window_w = 1;  // a divisor of the width
  int shift_h = 0;   // 0 … window_h − 1
  int shift_w = 0;   // 0 … window_w − 1

  static constexpr std::string_view kName = "window_attention";
  static constexpr std::tuple kFields{
      Field{"heads", &WindowAttention::heads},       Field{"scale", &WindowAttention::scale},
      Field{"height", &WindowAttention::height},     Field{"width", &WindowAttention::width},
      Field{"window_h", &WindowAttention::window_h}, Field{"window_w", &WindowAttention::window_w},
      Field{"shift_h", &WindowAttention::shift_h},   Field{"shift_w", &WindowAttention::shift_w}};
  bool operator==(const WindowAttention&) const = default;

  /// The factor that `scale` stands for with `head_channels` channels to a head.
  double factor(std::int64_t head_channels) const;
  /// Of one window.
  std::int64_t window_tokens() const { return std::int64_t{window_h} * window_w; }
  /// Of one grid.
  std::int64_t windows() const { return std::int64_t{height / window_h} * (width / window_w); }
  /// Of the bias of one head.
  std::int64_t bias_entries() const;
  /// The token of the grid that stands at `position` of `window`, both counted row by row.
  std::int64_t token(std::int64_t window, std::int64_t position) const;
  /// Rows (columns) of a window that lie before the border of the grid: all, where it does not go through the window.
  std::int64_t rows_before(std::int64_t window) const;
  std::int64_t columns_before(std::int64_t window) const;
};

/// What the mask adds to scores across the border.
constexpr double kAcrossBorder = -100;

std::vector<TensorType> infer(const WindowAttention& attributes, std::span<const TensorType> in);
void reference(const WindowAttention& attributes, std::span<const Tensor> in, std::span<Tensor> out);
/// The two products: 2·B·T·N·C with N the tokens of a window.
std::int64_t macs(const WindowAttention& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const WindowAttention& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit, ConfigError for attributes out of range.
Value window_attention(Value q, Value k, Value v, std::optional<Value> bias, const WindowAttention& attributes);

}  // namespace weft
