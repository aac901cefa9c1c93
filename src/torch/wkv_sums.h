// Sums of weighted tokens in libtorch's operators, for the tree forms of the WKV family. In f64: exponents grow with
// the number of tokens.
#pragma once

#include <torch/torch.h>

#include <initializer_list>

namespace weft::torch_engine {

constexpr double kEmptyExponent = -1e30;  // of an empty sum: finite, so that differences of two are no NaN

/// For each token the sums Σ f·e^k·v and Σ f·e^k over some tokens, as x·e^m. Exponents are constants to autograd: the
/// quotient does not depend on them, so that everything differentiable is in x.
struct Sums {
  at::Tensor x;  // [2,…,T,C]: with v, without
  at::Tensor m;  // […,T,C]

  Sums tokens(std::int64_t begin, std::int64_t end, std::int64_t step = 1) const {
    return {x.slice(-2, begin, end, step), m.slice(-2, begin, end, step)};
  }
  Sums flipped() const { return {x.flip(-2), m.flip(-2)}; }
  std::int64_t length() const { return m.size(-2); }
};

/// Of each token by itself, from k and v [B,T,C].
Sums single_tokens(const at::Tensor& k, const at::Tensor& v);

/// `count` empty sums in front of or behind the tokens.
Sums padded(const Sums& sums, std::int64_t front, std::int64_t back);

/// e^shift · sums; the shift broadcasts to [T,C].
struct Term {
  Sums sums;
  at::Tensor shift;
};

Sums total(std::initializer_list<Term> terms);

/// For each token t the sum over those before it: Σ_{i<t} e^{−(t−1−i)·w} sums_i, in O(log T) steps.
Sums before(const Sums& sums, const at::Tensor& w);

}  // namespace weft::torch_engine
