#include "kernel/onednn_peak.h"

#include <gtest/gtest.h>

#include "kernel/onednn.h"

namespace weft::onednn {
namespace {

TEST(MatrixPeak, IsARateWhereTheProcessorHasInstructions) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    SCOPED_TRACE(name_of(dtype));
    const double rate = MatrixPeak(dtype, 1).measure();
    if (!multiplies_natively(dtype)) {
      EXPECT_EQ(rate, 0);
      continue;
    }
    // From a tenth of an SSE core at 1 GHz to a core that multiplies 64 x 64 tiles in a cycle.
    EXPECT_GT(rate, 1e9);
    EXPECT_LT(rate, 1e14);
    EXPECT_GT(MatrixPeak(dtype, 3).measure(), 1e9);
  }
  EXPECT_TRUE(multiplies_natively(DType::kF32));
}

TEST(MatrixPeak, RefusesOtherTypes) { EXPECT_THROW(MatrixPeak(DType::kF64, 1), UnsupportedError); }

}  // namespace
}  // namespace weft::onednn
