// What is run for Bi-WKV, in which order, and where it finds its memory.
#pragma once

#include <type_traits>

#include "torch/cuda/kernels.h"
#include "torch/cuda/scratch.h"
#include "torch/cuda/wkv.h"
#include "torch/cuda/wkv_grad.h"

namespace weft::cuda {

/// Everything but the tensors. `rows` and `largest_tile` are smaller in tests.
template <class P>
P make_wkv(const WkvShape& shape, Scratch& scratch, bool backward, int rows = P::kRows, int largest_tile = kTile) {
  P p{};
  // With one token to a run the released kernel is the paper's formula with u + w in the place of u.
  constexpr int kRuns = 32;
  p.bonus_has_decay = shape.released_kernel && !P::kReleased;
  const int tokens = static_cast<int>(shape.tokens);
  p.tiling = Tiling::make(tokens, P::kReleased ? ceil_div(tokens, kRuns) : tokens, rows, largest_tile);
  p.columns = static_cast<int>(shape.batch * shape.channels);
  p.channels = static_cast<int>(shape.channels);
  const std::int64_t sums = static_cast<std::int64_t>(p.columns) * p.tiling.chunks;
  const std::int64_t passed_on = p.tiling.chunks == 1 ? 0 : sums;
  p.up = scratch.take<typename P::Up>(passed_on);
  p.down = scratch.take<typename P::Down>(passed_on);
  if (!backward) return p;
  p.gradient_up = scratch.take<typename P::GradientUp>(passed_on);
  p.gradient_down = scratch.take<typename P::GradientDown>(passed_on);
  p.shares = scratch.take<typename P::Share>(sums);
  return p;
}

/// Whether this is computed with runs.
inline bool has_runs(const WkvShape& shape) { return shape.released_kernel && shape.tokens > 32; }

template <class P>
void set_inputs(P& p, const void* k, const void* v, const void* w, const void* u) {
  const std::int64_t elements = static_cast<std::int64_t>(p.columns) * p.tiling.tokens;
  p.k = {static_cast<const typename P::Element*>(k), elements};
  p.v = {static_cast<const typename P::Element*>(v), elements};
  p.w = {static_cast<const typename P::Real*>(w), p.channels};
  p.u = {static_cast<const typename P::Real*>(u), p.channels};
}

template <class P>
void set_tensors(P& p, const WkvForward& tensors) {
  set_inputs(p, tensors.k, tensors.v, tensors.w, tensors.u);
  p.y = {static_cast<typename P::Element*>(tensors.y), p.k.size};
}

template <class P>
void set_tensors(P& p, const WkvBackward& tensors) {
  set_inputs(p, tensors.k, tensors.v, tensors.w, tensors.u);
  p.gy = {static_cast<const typename P::Element*>(tensors.gy), p.k.size};
  p.gk = {static_cast<typename P::Element*>(tensors.gk), p.k.size};
  p.gv = {static_cast<typename P::Element*>(tensors.gv), p.k.size};
  p.gw = {static_cast<typename P::Real*>(tensors.gw), p.channels};
  p.gu = {static_cast<typename P::Real*>(tensors.gu), p.channels};
}

/// The same for programs that need no derivatives, which read the sums without.
template <class E, bool kReleased>
Wkv<E, kReleased, 2, 4> without_derivatives(const Wkv<E, kReleased, 4>& p) {
  Wkv<E, kReleased, 2, 4> q{};
  q.tiling = p.tiling;
  q.columns = p.columns;
  q.channels = p.channels;
  q.bonus_has_decay = p.bonus_has_decay;
  q.k = p.k;
  q.v = p.v;
  q.gy = p.gy;
  q.w = p.w;
  q.u = p.u;
  q.gk = p.gk;
  q.gv = p.gv;
  q.up = p.up;
  q.down = p.down;
  q.gradient_up = p.gradient_up;
  q.gradient_down = p.gradient_down;
  return q;
}

/// run.program<Program>(p) runs a program on all its blocks.
template <class P, class Run>
void forward(const P& p, Run&& run) {
  if (p.tiling.chunks > 1) {
    run.template program<Summarize<P>>(p);
    run.template program<CarrySums<P>>(p);
  }
  run.template program<Outputs<P>>(p);
}

template <class P, class Run>
void backward(const P& p, Run&& run) {
  if (p.tiling.chunks > 1) {
    run.template program<Summarize<P>>(p);
    run.template program<CarrySums<P>>(p);
  }
  run.template program<SummarizeGradients<P>>(p);
  if (p.tiling.chunks > 1) run.template program<CarryGradients<P>>(p);
  const auto underived = without_derivatives(p);
  run.template program<Gradients<std::decay_t<decltype(underived)>>>(underived);
  run.template program<Reduce<P>>(p);
}

}  // namespace weft::cuda
