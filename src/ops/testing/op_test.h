// One check for every operator: each kernel against the double-precision reference.
#pragma once

#include <string>
#include <vector>

#include "graph/operation.h"
#include "ops/testing/random.h"
#include "weft/tensor.h"

namespace weft::testing {

struct OpCase {
  std::string name;
  Operation operation;
  std::vector<Tensor> inputs;  // f32, or whole numbers (i64)
  /// Bound on max |got − want| / (max |want| + 1e-6) over each output. Say where it comes from.
  double tolerance;
  /// Which inputs are weights, known when the kernel is made. Empty: none.
  std::vector<bool> constant = {};
};

/// What infer says to f32 inputs of these shapes: the text of its error, or "no error".
template <OpAttributes A>
std::string infer_error(const A& operation, const std::vector<Shape>& shapes) {
  std::vector<TensorType> in;
  for (const Shape& shape : shapes) in.push_back({DType::kF32, shape});
  try {
    infer(operation, in);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// Results of the kernel, on one thread.
std::vector<Tensor> run_kernel(const OpCase& c);

/// Results of the double-precision reference on the same inputs.
std::vector<Tensor> run_reference(const OpCase& c);

/// The largest relative error as above; infinite when a value is not finite where `want` is.
double relative_error(const Tensor& got, const Tensor& want);

/// Runs the operator's kernel on 1, 2 and 7 threads and every SIMD target of this machine, in memory poisoned with NaN
/// and fenced by guard bytes, and expects: results within the tolerance, equal to the bit for every number of threads,
/// inputs and fences untouched, the same results when the output may overwrite an input and does, and not mostly zeros;
/// and where the kernel takes bf16 or encodes its output, exactly what rounding and encoding around it would give.
void check_kernel(const OpCase& c);

}  // namespace weft::testing
