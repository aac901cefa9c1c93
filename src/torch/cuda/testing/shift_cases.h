// What the shift's CUDA kernels must get right: on a GPU, and on the CPU, where the tests run the same programs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ops/q_shift/q_shift.h"
#include "torch/cuda/testing/elements.h"

namespace weft::cuda::testing {

struct ShiftCase {
  QShift shift;
  Tensor x;                     // f32
  std::vector<Tensor> mix, gy;  // f32; without mixes no gradients
};

/// f64.
struct ShiftResults {
  std::vector<Tensor> y;
  Tensor gx;
  std::vector<Tensor> gmix;
};

using RunShift = std::function<ShiftResults(Element, const ShiftCase&)>;

std::vector<ShiftCase> shift_cases();
ShiftShape shape_of(const ShiftCase& c);
void expect_right(const ShiftCase& c, Element type, const RunShift& run);

}  // namespace weft::cuda::testing
