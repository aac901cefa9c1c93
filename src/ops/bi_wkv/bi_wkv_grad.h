// The gradient of Bi-WKV (bi_wkv.h; Duan et al., arXiv:2403.02308, equation 2) in linear time and memory.
//
// With y_t = N_t/D_t, N_t = Σ_i f(t,i) e^{k_i} v_i, D_t = Σ_i f(t,i) e^{k_i} and the loss's gradient gy [B,T,C] with
// respect to y, the gradients with respect to N and D are
//
//   g_t = gy_t/D_t          h_t = −g_t·y_t
//
// and from them, with A_i = Σ_t f(t,i) g_t and B_i = Σ_t f(t,i) h_t,
//
//   gv_i = e^{k_i}·A_i      gk_i = e^{k_i}·(v_i·A_i + B_i)
//   gu   = Σ_t e^{u+k_t}·(v_t·g_t + h_t)
//   gw   = Σ_{t,i} ∂f(t,i)/∂w · e^{k_i}·(v_i·g_t + h_t)
//
// w [C] and u [C] serve all batch entries: gw and gu are summed over them.
//
// In linear time: A and B are the same two-sided sums as N and D, of g and h in the place of e^k·v and e^k, and from
// the other side. gw needs no sums of its own. With λ = e^{−w} a forward sum is P_{t+1} = λ·P_t + e^{k_t}, so that λ's
// share of the gradient is Σ_t P_t·(gradient of P_{t+1}), and the gradient of P_{t+1} is the backward sum over h that B
// wants anyway; likewise for the sums over v and those that run backwards. For Wkv::kPaper, with P and S the sums of
// e^k over the tokens before and behind t, and P^h and S^h those of h, all of them weighted by λ^{|t−i|−1},
//
//   gw = −λ·Σ_t (P_t·S^h_t + S_t·P^h_t), and as much for e^k·v and g.
//
// Wkv::kReleasedKernel has the same for its sums over earlier runs, over this run, and for the rest that grows with e^w
// (bi_wkv_grad-inl.h). The CUDA kernel's own gk and gv belong to neither form; these are the gradients of what
// Wkv::kReleasedKernel computes.
#pragma once

#include <span>

#include "core/threads.h"
#include "ops/bi_wkv/bi_wkv.h"

namespace weft {

/// What Bi-WKV was computed from, and the gradient with respect to its result. Nothing else is kept from the forward
/// pass: sums and quotients are computed again, which costs less than reading them back.
template <class T>
struct BiWkvBackwardInput {
  std::span<const T> k, v;  // [B,T,C]
  std::span<const T> w, u;  // [C]
  std::span<const T> gy;    // [B,T,C]
};

template <class T>
struct BiWkvGradients {
  std::span<T> k, v;  // [B,T,C]
  std::span<T> w, u;  // [C]
};

/// Writes the gradients, for `shape` = [B,T,C]. The results may not overlap with anything else.
///
/// Sums are f32 within tiles of tokens, with carries between the tiles, and sums over the batch, in f64. Where
/// exponents would leave the range of f32 (a key more than 40 below or 30 above that of the first token, less what
/// weights grow by for w < 0 and u > 0; u < −25; for the released kernel a decay over a run above 1), the 16 channels
/// concerned take a log-space path in f64 for that batch entry: right for any finite keys, some fifteen times slower. A
/// key of −inf weighs nothing, and its gradients are zero. |v|, |gy| and |v·gy| may be up to 1e10; parts of gy below
/// 1e-18 may be lost.
///
/// Parallel over batch entries and blocks of 16 channels. Takes, for as long as it runs, 576 bytes per token and thread
/// (960 for Wkv::kReleasedKernel), and 16 per batch entry and channel. The same bits whatever the number of threads.
/// Throws ShapeError when sizes do not fit, std::bad_alloc when memory is short.
void bi_wkv_backward(Wkv form, const Shape& shape, const BiWkvBackwardInput<float>& in,
                     const BiWkvGradients<float>& out, const Workers& workers);

/// The sums above as they stand: O(T²), each scaled by its largest term.
void bi_wkv_backward_reference(Wkv form, const Shape& shape, const BiWkvBackwardInput<double>& in,
                               const BiWkvGradients<double>& out);

}  // namespace weft
