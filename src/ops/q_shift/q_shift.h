// The quad-directional token shift of Vision-RWKV (arXiv:2403.02308, eq. 2 and 3): each of four groups of channels is
// taken from one neighbour on the grid of tokens; outside the grid are zeros.
//
//   x  [B,T,C]   T = height · width, row by row
//   y  [B,T,C]   y[h,w,c] = x[h,w−p,c] for c in group 0   (from the left)
//                           x[h,w+p,c]            group 1   (right)
//                           x[h−p,w,c]            group 2   (above)
//                           x[h+p,w,c]            group 3   (below)
//                           x[h,w,c]  for all other c
//
// Group i begins at channel int(C·gamma·i), in double precision, and ends where the next begins.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct QShift {
  int height = 0;       // of the grid, in tokens
  int width = 0;        //
  int pixels = 1;       // p above, in tokens
  double gamma = 0.25;  // share of the channels in one group, at most 1/4

  static constexpr std::string_view kName = "q_shift";
  static constexpr std::tuple kFields{Field{"height", &QShift::height}, Field{"width", &QShift::width},
                                      Field{"pixels", &QShift::pixels}, Field{"gamma", &QShift::gamma}};
  bool operator==(const QShift&) const = default;

  /// First channel of each group and, last, of those that stay.
  std::array<std::int64_t, 5> cuts(std::int64_t channels) const;
};

std::vector<TensorType> infer(const QShift& attributes, std::span<const TensorType> in);
void reference(const QShift& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const QShift& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const QShift& attributes, const KernelRequest& request);

/// Throws ShapeError when x is no [B,height·width,C], ConfigError for attributes out of range.
Value q_shift(Value x, const QShift& attributes);

}  // namespace weft
