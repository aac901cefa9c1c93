// Bi-WKV, the bidirectional attention of Vision-RWKV (Duan et al., arXiv:2403.02308), linear in the number of tokens.
//
//   k  [B,T,C]   log-weight of each token (finite; −inf weighs nothing)
//   v  [B,T,C]
//   w  [C]       decay per token: the checkpoint's spatial_decay divided by T. w > 0 lets the weight of a token fall
//                with its distance, w < 0 lets it grow; no exp is applied to it (unlike RWKV-4 for language)
//   u  [C]       bonus of the token itself: spatial_first divided by T
//   y  [B,T,C]
//
// Per batch entry and channel y_t = Σ_i f(t,i) e^{k_i} v_i / Σ_i f(t,i) e^{k_i}, where f is
//
//   Wkv::kPaper, the formula of the paper:
//     f(t,t) = e^u            f(t,i) = e^{−(|t−i|−1)·w}  for i ≠ t
//
//   Wkv::kReleasedKernel, what the authors' CUDA kernel computes, with which the released weights were trained. It cuts
//   the tokens into 32 runs of L = ⌈T/32⌉; with s the first token of the run that holds t
//     f(t,t) = e^u + [t > s]·(1 − e^w)
//     f(t,i) = e^{−(t−i)·w}                                  for i < s
//     f(t,i) = e^{−(t−s−1)·w}                                for i = s < t
//     f(t,i) = e^{−(t−i−1)·w} + e^{(t−i)·w}·(1 − e^w)        for s < i < t
//     f(t,i) = e^{−(i−t)·w}                                  for i > t
//   For w = 0 the two agree; for T ≤ 32 it is the paper's with u + w in the place of u. Its weights may be negative, so
//   for large w > 0 the quotient can be ill-conditioned: that is a property of the formula. The CUDA kernel also adds
//   1e-6 to the denominator after scaling it by a running maximum; that moves results by up to 2.5e-6 and is left out.
//
// Forms, proven equal by the tests: direct (reference()), step by step (BiWkvRecurrence), and the parallel scan
// (make_kernel). The forward half alone, for streams and language models, is ops/causal_wkv.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/enum_names.h"
#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

enum class Wkv : std::uint8_t { kPaper, kReleasedKernel };

constexpr std::array<std::pair<Wkv, std::string_view>, 2> enum_names(Wkv) {
  return {{{Wkv::kPaper, "paper"}, {Wkv::kReleasedKernel, "released_kernel"}}};
}

/// Tokens per run of Wkv::kReleasedKernel: ⌈T/32⌉.
constexpr std::int64_t released_kernel_run(std::int64_t tokens) { return (tokens + 31) / 32; }

struct BiWkv {
  static constexpr std::string_view kName = "bi_wkv";
  Wkv wkv = Wkv::kPaper;
  static constexpr std::tuple kFields{Field{"wkv", &BiWkv::wkv}};
  bool operator==(const BiWkv&) const = default;
};

std::vector<TensorType> infer(const BiWkv& attributes, std::span<const TensorType> in);
/// The direct form: O(T²) sums, each scaled by its largest term.
void reference(const BiWkv& attributes, std::span<const Tensor> in, std::span<Tensor> out);
/// 29·B·T·C, the figure of the official counter, from which the published totals of Vision-RWKV come. (Equation 8 of
/// the paper says 13·T·C.)
std::int64_t macs(const BiWkv& attributes, std::span<const TensorType> in);
/// The scan: O(B·T·C) time, two sweeps over short tiles of tokens in f32 with carries between the tiles in f64, so that
/// rounding does not grow with T. Where exponents would leave the range of f32 (a key more than 60 below or 50 above
/// that of the first token, less what weights grow by for w < 0 and u > 0; u < −25; for the released kernel a decay
/// over a run above 1), the 16 channels concerned take a log-space path in f64 for that batch entry: right for any
/// finite keys, some twelve times slower, and parallel over B and C only. |v| may be up to 1e10.
/// y may take the place of k or of v.
std::unique_ptr<Kernel> make_kernel(const BiWkv& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit.
Value bi_wkv(Value k, Value v, Value w, Value u, Wkv wkv = Wkv::kPaper);

/// The step-by-step form of Wkv::kPaper for one batch entry (the RNN form of the paper): a state of 4·C numbers, of
/// which each step makes one token of y. The forward half grows by each token; the backward half starts as the sum over
/// the whole sequence and each token is taken out of it again:
///
///   a_t = e^{−w}·a_{t−1} + e^{k_t}·v_t          c_t = e^{w}·(c_{t−1} − e^{k_t}·v_t)
///   b_t = e^{−w}·b_{t−1} + e^{k_t}              d_t = e^{w}·(d_{t−1} − e^{k_t})
///   y_t = (a_{t−1} + e^{u+k_t}·v_t + c_t) / (b_{t−1} + e^{u+k_t} + d_t)
///
/// This is exact in exact arithmetic. In f64 the differences lose about e^{T·|w|}·e^{max k − min k} units of the last
/// place: fit for |w|·T + max k − min k up to some 15 (6 digits left), and the reason why the scan sums both ways
/// instead.
class BiWkvRecurrence {
 public:
  /// k and v are [T,C]; w and u are [C]. Throws ShapeError when the sizes do not fit. k and v must outlive this.
  BiWkvRecurrence(std::span<const double> k, std::span<const double> v, std::span<const double> w,
                  std::span<const double> u);

  /// Writes the next token of y [C]. May be called T times.
  void step(std::span<double> y);

 private:
  std::span<const double> k_, v_;
  std::vector<double> decay_, growth_, bonus_, shift_;  // e^{−w}, e^w, e^u, max k; [C] each
  std::vector<double> a_, b_, c_, d_;
  std::size_t next_ = 0;
};

}  // namespace weft
