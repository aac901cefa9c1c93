// Which element types a test may ask products for on this machine.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "kernel/onednn.h"

namespace weft::testing {

inline constexpr const char* kNoFewerBits = "this CPU multiplies neither bf16 nor int8 in hardware";

/// Those of bf16 and int8 that this CPU multiplies in hardware. A test of nothing else skips itself where there is
/// none, with kNoFewerBits.
inline std::vector<DType> fewer_bits() {
  std::vector<DType> types;
  for (const DType dtype : {DType::kBF16, DType::kI8}) {
    if (onednn::multiplies_natively(dtype)) types.push_back(dtype);
  }
  return types;
}

/// f32 and those.
inline std::vector<DType> product_types() {
  std::vector<DType> types = fewer_bits();
  types.insert(types.begin(), DType::kF32);
  return types;
}

}  // namespace weft::testing
