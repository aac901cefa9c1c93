// Attention free attention (Zhai et al., "An Attention Free Transformer", 2021, arXiv:2105.14103, eq. 2, 4 and 5), from
// which RWKV comes: for each channel a mean of the values, weighted by keys and by how positions lie to each other.
//
//   y_t = Σ_i e^{k_i + b(t,i)} v_i / Σ_i e^{k_i + b(t,i)}      over all tokens i, or i ≤ t in a causal one
//
//   k     [B,T,K]          log-weight of each token; K divides C, and each key is that of C/K neighbouring channels
//   v     [B,T,C]
//   bias  absent           AFT-simple: b = 0
//         [T',T'], T' ≥ T  AFT-full: b(t,i) is element (t,i). AFT-local: where |t − i| < window, else 0
//         [F,h,w]          AFT-conv: a filter for each of F groups of neighbouring keys, F divides K. Tokens are a grid
//                          of height × width, row by row, and b(t,i) is the tap that lies on i when tap (h/2, w/2)
//                          (rounded down) lies on t, 0 where none does. Causal ones are along a line, h = 1, and have
//                          their last tap on t
//   y     [B,T,C]
//
// A b of 0 is not a mask: what is outside of a window or a filter is seen as well. Elements of −inf hide a token; a
// position that sees none is NaN. The gate sigmoid(q), which the paper multiplies y by, and the projections are
// operators of their own. Causal without a bias, this is the causal half of RWKV's mixer with neither decay nor bonus.
//
// Forms, proven equal by the tests: direct (reference()), token by token with a state (AftRecurrence; causal, and not
// AFT-full), sums over all tokens and products of what has a bias (make_kernel).
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct Aft {
  bool causal = false;
  int window = 0;  // of a table; 0: all of it counts
  int height = 0;  // of the grid that a filter lies on, in tokens; 0 × 0 is a line of T
  int width = 0;   //

  static constexpr std::string_view kName = "aft";
  static constexpr std::tuple kFields{Field{"causal", &Aft::causal}, Field{"window", &Aft::window},
                                      Field{"height", &Aft::height}, Field{"width", &Aft::width}};
  bool operator==(const Aft&) const = default;
};

std::vector<TensorType> infer(const Aft& attributes, std::span<const TensorType> in);
/// The direct form: O(T²) sums, each scaled by its largest term.
void reference(const Aft& attributes, std::span<const Tensor> in, std::span<Tensor> out);
/// Both sums over the tokens with a bias of their own, as if no window or filter reached beyond the sequence and causal
/// ones saw all: 2·B·C·T² (full), 2·B·T·C·(2·window − 1) or, causal, 2·B·T·C·window (local), 2·B·T·C·h·w (filter),
/// 2·B·T·C (no bias).
std::int64_t macs(const Aft& attributes, std::span<const TensorType> in);
/// Keys are taken relative to the largest of their channel, biases to the largest of their row. A filter or no bias: a
/// tile of channels at a time, what the filter does not reach from sums before and behind it, O(T·h·w) in time, or
/// O(T). A table: products of tiles of e^b with [e^k·v | e^k], O(T·window) or O(T²). Memory is linear in T beside the
/// table. Where the keys of a channel and the biases together span more than 60, that channel (of that tile of a table)
/// takes a path in f64 and log space: right for any finite keys and biases, and some hundred times slower than a
/// product. |v| may be up to 1e10. Computes in f32 in all precisions.
std::unique_ptr<Kernel> make_kernel(const Aft& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit, ConfigError for attributes that make no sense with that bias.
Value aft(Value k, Value v, std::optional<Value> bias, const Aft& attributes);

/// A weighted sum of values and the sum of the weights, both times e^exponent.
struct AftSums {
  double numerator = 0, denominator = 0, exponent = -std::numeric_limits<double>::infinity();
};

/// The form token by token of what is causal, for one batch entry. Its state: the sums over the tokens that have left
/// the window, or the reach of the filter, and the keys and values of those that have not (none without a bias).
class AftRecurrence {
 public:
  /// `bias` (f64) as the operator takes it, for K keys and C channels. Throws ConfigError when the attributes are not
  /// causal or have no bounded state, ShapeError when the extents do not fit.
  AftRecurrence(const Aft& attributes, std::int64_t keys, std::int64_t channels, std::optional<Tensor> bias = {});

  /// One token: k is [K], v is [C], and y [C] takes the result. A table of T' rows is good for T' tokens.
  void step(std::span<const double> k, std::span<const double> v, std::span<double> y);
  /// Numbers in the state once it is full: it grows no more.
  std::size_t state_size() const;

 private:
  double bias_of(std::size_t key, std::size_t age) const;

  std::size_t keys_, channels_, reach_;  // tokens that have a bias, this one included
  std::optional<Tensor> bias_;
  std::size_t next_ = 0;
  std::vector<double> recent_keys_, recent_values_;  // rings of `reach_` tokens, token t at t mod reach_
  std::vector<AftSums> gone_;                        // [C], of the tokens before these
};

}  // namespace weft
