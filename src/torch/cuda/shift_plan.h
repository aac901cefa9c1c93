// What is run for the shift, in which order, and where it finds its memory.
#pragma once

#include <algorithm>

#include "torch/cuda/kernels.h"
#include "torch/cuda/scratch.h"
#include "torch/cuda/shift.h"

namespace weft::cuda {

/// Everything but the tensors.
template <class P>
P make_shift(const ShiftShape& shape, Scratch& scratch, bool backward) {
  P p{};
  p.height = static_cast<int>(shape.height);
  p.width = static_cast<int>(shape.width);
  // Beyond the picture is beyond the picture.
  const std::int64_t farthest = std::max(shape.height, shape.width);
  p.pixels = static_cast<int>(std::clamp(shape.pixels, -farthest, farthest));
  p.channels = static_cast<int>(shape.channels);
  p.tokens = shape.batch * shape.height * shape.width;
  std::copy(std::begin(shape.cuts), std::end(shape.cuts), std::begin(p.cuts));
  if (backward) {
    p.shares = scratch.take<typename P::Share>(ceil_div<std::int64_t>(p.tokens, P::kTokensPerBlock) * p.channels);
  }
  return p;
}

template <class P>
void set_tensors(P& p, const ShiftForward& tensors) {
  const std::int64_t elements = p.tokens * p.channels;
  p.x = {static_cast<const typename P::Element*>(tensors.x), elements};
  for (int m = 0; m < P::kResults; ++m) p.y[m] = {static_cast<typename P::Element*>(tensors.y[m]), elements};
  for (int m = 0; m < P::kMixes; ++m) p.mix[m] = {static_cast<const typename P::Real*>(tensors.mix[m]), p.channels};
}

template <class P>
void set_tensors(P& p, const ShiftBackward& tensors) {
  const std::int64_t elements = p.tokens * p.channels;
  p.x = {static_cast<const typename P::Element*>(tensors.x), elements};
  p.gx = {static_cast<typename P::Element*>(tensors.gx), elements};
  for (int m = 0; m < P::kMixes; ++m) {
    p.gy[m] = {static_cast<const typename P::Element*>(tensors.gy[m]), elements};
    p.mix[m] = {static_cast<const typename P::Real*>(tensors.mix[m]), p.channels};
    p.gmix[m] = {static_cast<typename P::Real*>(tensors.gmix[m]), p.channels};
  }
}

template <class P, class Run>
void shift_programs(const P& p, Run&& run, bool backward) {
  if constexpr (P::kMixes > 0) {
    if (backward) {
      run.template program<ShiftGradients<P>>(p);
      run.template program<ShiftReduce<P>>(p);
      return;
    }
  }
  run.template program<ShiftAndMix<P>>(p);
}

}  // namespace weft::cuda
