// WKV, the causal attention of RWKV-4 (Peng et al., arXiv:2305.13048, equations 16 and 26 to 28), with the state that
// makes it a recurrent network: linear in the number of tokens, constant in memory from token to token.
//
//   k      [B,T,C]  log-weight of each token (finite; −inf weighs nothing)
//   v      [B,T,C]
//   w      [C]      decay per token. w > 0 lets the weight of a token fall with its distance: e^{time_decay} of an
//                   RWKV-4 checkpoint. w = 0 (with u = 0: the causal AFT-simple, arXiv:2105.14103) and w < 0 are fine
//   u      [C]      bonus of the token itself: time_first
//   state  [B,3,C]  what came before: numerator aa, denominator bb and exponent pp of its sums, aa·e^pp and bb·e^pp
//   y      [B,T,C]
//   next   [B,3,C]  the state after the last token
//
// Per batch entry and channel, for t = 0 … T−1, y_t = N_t/D_t with
//
//   N_t = e^{pp − t·w}·aa + Σ_{i<t} e^{k_i − (t−1−i)·w}·v_i + e^{u + k_t}·v_t
//
// and D_t the same with bb for aa and 1 for v. The next state is what the following token would meet, scaled as the
// official code does, by the largest of its terms:
//
//   pp' = max(pp − T·w, max_i(k_i − (T−1−i)·w))
//   aa' = e^{pp − T·w − pp'}·aa + Σ_i e^{k_i − (T−1−i)·w − pp'}·v_i, and bb' likewise
//
// Before the first token aa = bb = 0 (pp = −1e30 by custom); such a state weighs nothing, and its exponent does not
// count. Without tokens the next state is the state. So a sequence may be cut anywhere, the state carried over.
//
// Forms, proven equal by the tests: direct (reference()), step by step (CausalWkvRecurrence), and the scan over tokens
// (make_kernel), of which a single step is a sequence of one token. The gradient is in causal_wkv_grad.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct CausalWkv {
  static constexpr std::string_view kName = "causal_wkv";
  static constexpr std::tuple<> kFields{};
  bool operator==(const CausalWkv&) const = default;

  /// pp of a state before the first token. Its aa and bb are 0.
  static constexpr float kEmptyExponent = -1e30F;
};

std::vector<TensorType> infer(const CausalWkv& attributes, std::span<const TensorType> in);
/// The direct form: O(T²) sums, each scaled by its largest term.
void reference(const CausalWkv& attributes, std::span<const Tensor> in, std::span<Tensor> out);
/// 6·B·T·C: numerator and denominator of y and of the next state.
std::int64_t macs(const CausalWkv& attributes, std::span<const TensorType> in);
/// The scan: O(B·T·C) time, in f32, two exponentials a token and channel. A sum is kept relative to its heaviest token,
/// as part·e^{k − age·w}: all exponents are differences of two, rounded once, right for any finite keys, and a part is
/// multiplied only when another token becomes the heaviest. Sums grow in runs of tokens that are added up, so that
/// rounding hardly grows with T; what is lost in rounding pp is put into aa and bb, so that it does not grow with the
/// number of cuts either. Takes k and v in bf16, too, and y may take the place of k or of v.
std::unique_ptr<Kernel> make_kernel(const CausalWkv& attributes, const KernelRequest& request);

struct CausalWkvResult {
  Value y, next;
};
/// Throws ShapeError when the extents do not fit.
CausalWkvResult causal_wkv(Value k, Value v, Value w, Value u, Value state);

/// The step-by-step form for one batch entry, in double precision.
class CausalWkvRecurrence {
 public:
  /// w and u are [C]. Starts before the first token. Throws ShapeError when they differ in size.
  CausalWkvRecurrence(std::span<const double> w, std::span<const double> u);

  /// One token: k and v are [C], y [C] takes the result.
  void step(std::span<const double> k, std::span<const double> v, std::span<double> y);

  /// aa, bb and pp, [3,C]: to be kept, and to go on from.
  std::span<const double> state() const { return state_; }
  void restore(std::span<const double> state);

 private:
  std::vector<double> w_, u_;
  std::vector<double> state_;
};

}  // namespace weft
