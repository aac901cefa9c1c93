#include "torch/wkv_sums.h"

#include <vector>

namespace weft::torch_engine {

using at::Tensor;

Sums single_tokens(const Tensor& k, const Tensor& v) {
  const Tensor m = k.detach().clamp_min(kEmptyExponent);
  return {at::stack({v, at::ones_like(v)}) * at::exp(k - m), m};
}

Sums padded(const Sums& sums, std::int64_t front, std::int64_t back) {
  return {at::constant_pad_nd(sums.x, {0, 0, front, back}),
          at::constant_pad_nd(sums.m, {0, 0, front, back}, kEmptyExponent)};
}

Sums total(std::initializer_list<Term> terms) {
  std::vector<Tensor> exponents;
  Tensor m;
  for (const auto& [sums, shift] : terms) {
    exponents.push_back(sums.m + shift.detach());
    m = m.defined() ? at::maximum(m, exponents.back()) : exponents.back();
  }
  Tensor x;
  std::size_t i = 0;
  for (const auto& [sums, shift] : terms) {
    // The last difference is zero, and carries the gradient of the shift.
    const Tensor scaled = sums.x * at::exp((exponents[i++] - m) + (shift - shift.detach()));
    x = x.defined() ? x + scaled : scaled;
  }
  return {x, m};
}

// Pairs of tokens are summed, the same is done to the pairs, and what is before a pair's second token is what is before
// the pair and its first.
Sums before(const Sums& sums, const Tensor& w) {
  const std::int64_t length = sums.length();
  if (length <= 1) return {at::zeros_like(sums.x), at::full_like(sums.m, kEmptyExponent)};
  const Sums even = length % 2 == 0 ? sums : padded(sums, 0, 1);
  const Sums first = even.tokens(0, even.length(), 2);
  const Sums second = even.tokens(1, even.length(), 2);
  const Tensor none = at::zeros_like(w);
  const Sums before_first = before(total({{first, -w}, {second, none}}), 2 * w);
  const Sums before_second = total({{before_first, -w}, {first, none}});
  const auto woven = [&](const Tensor& a, const Tensor& b) {
    return at::stack({a, b}, -2).flatten(-3, -2).slice(-2, 0, length);
  };
  return {woven(before_first.x, before_second.x), woven(before_first.m, before_second.m)};
}

}  // namespace weft::torch_engine
