// Attention within windows of a grid, and norms for it.
#include "torch/lowering.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;

at::TensorOptions integers_like(const Tensor& x) { return at::TensorOptions().dtype(at::kLong).device(x.device()); }

// Half precision has too few digits for sums of exponentials.
Tensor softmax_of(const Tensor& scores) {
  const bool wide = scores.scalar_type() == at::kFloat || scores.scalar_type() == at::kDouble;
  return at::softmax(scores, -1, wide ? scores.scalar_type() : at::kFloat).to(scores.scalar_type());
}

// From [B,T,…] to windows of the shifted grid, [B,windows,N,…] with N tokens each.
Tensor windows_of(const Tensor& x, const weft::WindowAttention& a) {
  const Tensor grid = x.reshape({x.size(0), a.height, a.width, -1});
  const Tensor shifted = a.shift_h == 0 && a.shift_w == 0 ? grid : at::roll(grid, {-a.shift_h, -a.shift_w}, {1, 2});
  return shifted.reshape({x.size(0), a.height / a.window_h, a.window_h, a.width / a.window_w, a.window_w, -1})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({x.size(0), a.windows(), a.window_tokens(), -1});
}

Tensor from_windows(const Tensor& x, const weft::WindowAttention& a) {
  const Tensor grid = x.reshape({x.size(0), a.height / a.window_h, a.width / a.window_w, a.window_h, a.window_w, -1})
                          .permute({0, 1, 3, 2, 4, 5})
                          .reshape({x.size(0), a.height, a.width, -1});
  return a.shift_h == 0 && a.shift_w == 0 ? grid : at::roll(grid, {a.shift_h, a.shift_w}, {1, 2});
}

// From the table to [heads,N,N].
Tensor window_bias(const Tensor& table, const weft::WindowAttention& a) {
  const auto differences = [&](std::int64_t extent) {
    const Tensor at = at::arange(extent, integers_like(table));
    return at.unsqueeze(1) - at.unsqueeze(0) + (extent - 1);
  };
  const Tensor rows = differences(a.window_h).reshape({a.window_h, 1, a.window_h, 1});
  const Tensor columns = differences(a.window_w).reshape({1, a.window_w, 1, a.window_w});
  const Tensor entries = (rows * (2 * std::int64_t{a.window_w} - 1) + columns).reshape({-1});
  return table.index_select(1, entries).reshape({a.heads, a.window_tokens(), a.window_tokens()});
}

// [windows,1,N,N]
Tensor window_mask(const Tensor& like, const weft::WindowAttention& a) {
  const Tensor rows = at::arange(a.height, integers_like(like)) >= a.height - a.shift_h;
  const Tensor columns = at::arange(a.width, integers_like(like)) >= a.width - a.shift_w;
  weft::WindowAttention plain = a;
  plain.shift_h = plain.shift_w = 0;
  const Tensor regions = windows_of((rows.to(at::kLong).unsqueeze(1) * 2 + columns.to(at::kLong)).unsqueeze(0), plain)
                             .reshape({a.windows(), 1, a.window_tokens()});
  return ((regions.unsqueeze(3) != regions.unsqueeze(2)).to(like.scalar_type()) * kAcrossBorder);
}

// [B,heads,D,k·k,T]: for each position what lies around it, zeros outside the grid.
Tensor neighbourhoods(const Tensor& x, const weft::SlidingAttention& a) {
  const std::int64_t side = a.kernel_size;
  const std::int64_t reach = (side - 1) / 2;
  const Tensor grid = x.reshape({x.size(0), a.height, a.width, x.size(2)}).permute({0, 3, 1, 2});
  return at::im2col(grid, {side, side}, {1, 1}, {reach, reach}, {1, 1})
      .reshape({x.size(0), a.heads, x.size(2) / a.heads, side * side, x.size(1)});
}

}  // namespace

Results lower(const weft::WindowAttention& a, Inputs in, const Setting& setting) {
  if (setting.out.elements() == 0) return at::zeros(extents(setting.out), in[0].options());
  const std::int64_t head_channels = setting.out[2] / a.heads;
  const auto by_head = [&](const Tensor& x) {  // [B,windows,heads,N,D]
    return windows_of(x, a)
        .reshape({x.size(0), a.windows(), a.window_tokens(), a.heads, head_channels})
        .transpose(2, 3);
  };
  Tensor scores = at::matmul(by_head(in[0]) * a.factor(head_channels), by_head(in[1]).transpose(3, 4));
  if (in.size() == 4) scores = scores + window_bias(in[3], a);
  if (a.shift_h > 0 || a.shift_w > 0) scores = scores + window_mask(scores, a);
  const Tensor mixed = at::matmul(softmax_of(scores), by_head(in[2])).transpose(2, 3);
  return from_windows(mixed.reshape({setting.out[0], a.windows(), a.window_tokens(), setting.out[2]}), a)
      .reshape(extents(setting.out));
}

Results lower(const weft::SlidingAttention& a, Inputs in, const Setting& setting) {
  if (setting.out.elements() == 0) return at::zeros(extents(setting.out), in[0].options());
  const std::int64_t head_channels = setting.out[2] / a.heads;
  const std::int64_t entries = std::int64_t{a.kernel_size} * a.kernel_size;
  const Tensor q = (in[0] * a.factor(head_channels))
                       .reshape({setting.out[0], setting.out[1], a.heads, head_channels})
                       .permute({0, 2, 3, 1})
                       .unsqueeze(3);                                     // [B,heads,D,1,T]
  Tensor scores = (q * neighbourhoods(in[1], a)).sum(2).transpose(2, 3);  // [B,heads,T,k·k]
  if (in.size() == 4) scores = scores + in[3].reshape({1, a.heads, 1, entries});
  if (a.border == SlidingBorder::kExcluded) {
    weft::SlidingAttention plain = a;
    plain.heads = 1;
    const Tensor inside = neighbourhoods(at::ones({1, setting.out[1], 1}, in[0].options()), plain)
                              .reshape({1, 1, entries, setting.out[1]})
                              .transpose(2, 3);
    scores = scores.masked_fill(inside == 0, -std::numeric_limits<double>::infinity());
  }
  const Tensor weights = softmax_of(scores).transpose(2, 3).unsqueeze(2);  // [B,heads,1,k·k,T]
  return (weights * neighbourhoods(in[2], a)).sum(3).permute({0, 3, 1, 2}).reshape(extents(setting.out));
}

Results lower(const weft::L2Norm& norm, Inputs in, const Setting& setting) {
  if (setting.out.elements() == 0) return at::zeros(extents(setting.out), in[0].options());
  const Tensor heads = in[0].reshape({-1, setting.out[-1] / norm.heads});
  const Tensor length = heads.norm(2, {1}, /*keepdim=*/true).clamp_min(double{norm.eps});
  return (heads / length).reshape(extents(setting.out));
}

}  // namespace weft::torch_engine
