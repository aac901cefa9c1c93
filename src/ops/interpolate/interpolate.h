// Resizing of a grid of vectors, as PyTorch's F.interpolate(size = …, align_corners = False).
//
//   x  [B,H,W,C]            channels last
//   y  [B,out_h,out_w,C]    y[i,j] = Σ_p Σ_q k(sy − p) · k(sx − q) · x[p,q],   sy = (i + 1/2)·H/out_h − 1/2, sx alike
//
// with positions p, q outside the grid read at its border, and the weights
//
//   bilinear  k(d) = max(0, 1 − |d|)
//   bicubic   k(d) = (A+2)|d|³ − (A+3)d² + 1 for |d| ≤ 1, A|d|³ − 5A·d² + 8A|d| − 4A for |d| < 2, else 0; A = −3/4
//             (Keys 1981)
//
// bicubic_antialias is PyTorch's antialias = True, which is Pillow's filter: k(d/s) with A = −1/2 and s = max(H/out_h,
// 1), as wide as the step between samples where the grid shrinks; nothing is read outside the grid, the weights that
// remain are divided by their sum. Where the grid grows it still differs from bicubic, by A and at the borders.
//
// Vision transformers resize their position embeddings with it. Counts no multiply-accumulates.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/enum_names.h"
#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

enum class InterpolateMode { kBilinear, kBicubic, kBicubicAntialias };
constexpr std::array<std::pair<InterpolateMode, std::string_view>, 3> enum_names(InterpolateMode) {
  return {{{InterpolateMode::kBilinear, "bilinear"},
           {InterpolateMode::kBicubic, "bicubic"},
           {InterpolateMode::kBicubicAntialias, "bicubic_antialias"}}};
}

struct Interpolate {
  InterpolateMode mode = InterpolateMode::kBicubic;
  int out_h = 1;
  int out_w = 1;

  static constexpr std::string_view kName = "interpolate";
  static constexpr std::tuple kFields{Field{"mode", &Interpolate::mode}, Field{"out_h", &Interpolate::out_h},
                                      Field{"out_w", &Interpolate::out_w}};
  bool operator==(const Interpolate&) const = default;
};

std::vector<TensorType> infer(const Interpolate& attributes, std::span<const TensorType> in);
void reference(const Interpolate& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Interpolate& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Interpolate& attributes, const KernelRequest& request);

/// Throws ShapeError when x is no [B,H,W,C] with H, W ≥ 1, ConfigError when the result would be empty.
Value interpolate(Value x, const Interpolate& attributes);

}  // namespace weft
