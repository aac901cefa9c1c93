// The gradient of the causal WKV (causal_wkv.h) in linear time and memory.
//
// With y_t = N_t/D_t, (a_t, b_t) the sums that token t meets, λ = e^{−w} and the loss's gradient gy [B,T,C] with
// respect to y, the gradients with respect to N and D are
//
//   g_t = gy_t/D_t          h_t = −g_t·y_t
//
// and from them, with A_t = Σ_{s>t} λ^{s−1−t}·g_s and B_t = Σ_{s>t} λ^{s−1−t}·h_s, which are the gradients with respect
// to a_{t+1} and b_{t+1},
//
//   gv_t = e^{k_t}·(A_t + e^u·g_t)
//   gk_t = e^{k_t}·(v_t·(A_t + e^u·g_t) + B_t + e^u·h_t)
//   gu   = Σ_t e^{u+k_t}·(v_t·g_t + h_t)
//   gw   = −λ·Σ_t (a_t·A_t + b_t·B_t)
//
// and for the state, with A_{−1} and B_{−1}, e^pp·A, e^pp·B and e^pp·(aa·A + bb·B). w [C] and u [C] serve all batch
// entries: gw and gu are summed over them.
//
// This is the gradient of y alone: what comes back through the next state is for the caller to add (src/torch does).
#pragma once

#include <span>

#include "core/threads.h"
#include "ops/causal_wkv/causal_wkv.h"

namespace weft {

/// What the causal WKV was computed from, and the gradient with respect to y. Nothing else is kept from the forward
/// pass.
template <class T>
struct CausalWkvBackwardInput {
  std::span<const T> k, v;   // [B,T,C]
  std::span<const T> w, u;   // [C]
  std::span<const T> state;  // [B,3,C]
  std::span<const T> gy;     // [B,T,C]
};

template <class T>
struct CausalWkvGradients {
  std::span<T> k, v;   // [B,T,C]
  std::span<T> w, u;   // [C]
  std::span<T> state;  // [B,3,C]; zero where the state is empty
};

/// Writes the gradients, for `shape` = [B,T,C]. The results may not overlap with anything else.
///
/// All sums are f64 in log space, so that it is right for any finite keys: the exponents of all products above are at
/// most 0. Tokens go in segments; the sums at their borders are made first, then segment by segment, from the last on,
/// what is within. Parallel over batch entries and blocks of 16 channels, the same bits whatever the number of threads.
/// Takes for as long as it runs, for each thread, 24 KiB and 3 bytes a token. Throws ShapeError when sizes do not fit,
/// std::bad_alloc when memory is short.
void causal_wkv_backward(const Shape& shape, const CausalWkvBackwardInput<float>& in,
                         const CausalWkvGradients<float>& out, const Workers& workers);

/// The sums of causal_wkv.h term by term: O(T²), each scaled by its largest.
void causal_wkv_backward_reference(const Shape& shape, const CausalWkvBackwardInput<double>& in,
                                   const CausalWkvGradients<double>& out);

}  // namespace weft
