// What Bi-WKV's CUDA kernels must get right: on a GPU, and on the CPU, where the tests run the same programs.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "ops/bi_wkv/bi_wkv.h"
#include "torch/cuda/testing/elements.h"
#include "weft/tensor.h"

namespace weft::cuda::testing {

struct WkvCase {
  std::string name;
  weft::Wkv form;
  Tensor k, v, w, u, gy;  // f32

  const Shape& shape() const { return k.shape(); }
};

/// f64; of `gradients` those of k, v, w and u.
struct WkvResults {
  Tensor y;
  std::array<Tensor, 4> gradients;
};

/// Runs forward and backward pass with tensors of one type; w, u and their gradients are f32, or f64 for kF64.
using RunWkv = std::function<WkvResults(Element, const WkvCase&)>;

std::vector<WkvCase> ordinary_cases();
/// Keys, decays and bonuses that leave the range of f32's exponents.
std::vector<WkvCase> extreme_cases();

/// What a model has: w and u divided by the number of tokens.
WkvCase model_case(weft::Wkv form, std::int64_t b, std::int64_t t, std::int64_t c);
WkvShape shape_of(const WkvCase& c);

/// Expects what the double-precision references give for the inputs rounded to the type.
void expect_right(const WkvCase& c, Element type, const RunWkv& run);

}  // namespace weft::cuda::testing
