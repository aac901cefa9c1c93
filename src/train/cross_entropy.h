// How sure a model was of what is right.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

namespace weft {

/// −ln of the probability that softmax gives the right one, in f64.
inline double cross_entropy(std::span<const float> logits, std::size_t right) {
  const double most = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - most);
  return std::log(sum) + most - logits[right];
}

}  // namespace weft
