// Made-up data for tests and benchmarks.
#pragma once

#include <cstdint>
#include <random>

#include "weft/tensor.h"

namespace weft::testing {

/// Deterministic standard normal values times `scale` plus `shift`.
inline Tensor random_tensor(Shape shape, std::uint64_t seed, float scale = 1, float shift = 0) {
  Tensor out(DType::kF32, std::move(shape));
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  for (float& value : out.mutable_data<float>()) value = normal(random) * scale + shift;
  return out;
}

}  // namespace weft::testing
