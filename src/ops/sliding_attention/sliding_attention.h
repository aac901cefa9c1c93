// Softmax attention of each position to the window around it (the sliding local attention of Han et al., "On the
// Connection between Local Attention and Dynamic Depth-wise Convolution", ICLR 2022, arXiv:2106.04263, eq. 1 and 2):
//
//   y_i = Σ_j softmax_j(q_i·k_j · scale + bias_{j−i}) · v_j      for each head, j in the k × k window centred at i
//
//   q     [B,T,C]        T = height · width, row by row
//   k, v  [B,T,C]
//   bias  [heads,k·k]    or absent; for a key (dy,dx) from the query the entry (dy + p)·k + dx + p, p = (k − 1)/2
//   y     [B,T,C]        head h has the channels [h·D, (h+1)·D), D = C/heads
//
// Positions outside the grid take no part, or have zeros for key and value. Computes in f32 in all precisions.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

enum class SlidingBorder { kExcluded, kZeroPadding };
constexpr std::array<std::pair<SlidingBorder, std::string_view>, 2> enum_names(SlidingBorder) {
  return {{{SlidingBorder::kExcluded, "excluded"}, {SlidingBorder::kZeroPadding, "zero_padding"}}};
}

struct SlidingAttention {
  int heads = 1;
  int kernel_size = 1;  // k, odd
  float scale = 0;      // of the scores; 0 stands for 1/√D
  int height = 0;       // of the grid, in tokens
  int width = 0;        //
  SlidingBorder border = SlidingBorder::kExcluded;

  static constexpr std::string_view kName = "sliding_attention";
  static constexpr std::tuple kFields{
      Field{"heads", &SlidingAttention::heads}, Field{"kernel_size", &SlidingAttention::kernel_size},
      Field{"scale", &SlidingAttention::scale}, Field{"height", &SlidingAttention::height},
      Field{"width", &SlidingAttention::width}, Field{"border", &SlidingAttention::border}};
  bool operator==(const SlidingAttention&) const = default;

  /// The factor that `scale` stands for with `head_channels` channels to a head.
  double factor(std::int64_t head_channels) const;
};

std::vector<TensorType> infer(const SlidingAttention& attributes, std::span<const TensorType> in);
void reference(const SlidingAttention& attributes, std::span<const Tensor> in, std::span<Tensor> out);
/// The two products: 2·B·T·k²·C, as if no window reached beyond the grid.
std::int64_t macs(const SlidingAttention& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const SlidingAttention& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit, ConfigError for attributes out of range.
Value sliding_attention(Value q, Value k, Value v, std::optional<Value> bias, const SlidingAttention& attributes);

}  // namespace weft
