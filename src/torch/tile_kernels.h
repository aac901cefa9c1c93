// What the operators of a region (torch/region.h) do to a tile in f32, forward and backward: SIMD kernels for one
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace weft::torch_engine {

/// Of `rows` × `columns` elements, or one row that all rows share.
struct Operand {
  const float* at = nullptr;
  bool is_row = false;
};

/// Where a result goes: over what is there, or added to it. Null: not wanted.
struct Target {
  float* at = nullptr;
  bool adds = false;
  bool is_bf16 = false;  // what is there, then, are the bits of bf16; nothing is added to these
  explicit operator bool() const { return at != nullptr; }
  std::uint16_t* bf16() const { return reinterpret_cast<std::uint16_t*>(at); }
  Target behind(std::int64_t elements) const {
    if (!is_bf16) return {at + elements, adds};
    return {reinterpret_cast<float*>(bf16() + elements), adds, true};
  }
};

/// y = f(a, b, c). g is the gradient of what the function of the same name without Gradient made.
enum class Map : std::uint8_t {
  kCopy,                 // a
  kAdd,                  // a + b
  kMul,                  // a·b
  kScale,                // a·factor
  kLerp,                 // a·c + b·(1 − c)
  kSigmoid,              // 1/(1 + e^−a)
  kTanh,                 //
  kSquaredRelu,          // max(a, 0)²
  kGelu,                 // a·Φ(a)
  kSigmoidGradient,      // g·s·(1 − s), of (g, s), s the sigmoid
  kTanhGradient,         // g·(1 − t²), of (g, t), t the hyperbolic tangent
  kSquaredReluGradient,  // 2·g·max(x, 0), of (g, x)
  kGeluGradient,         // g·(Φ(x) + x·φ(x)), of (g, x)
};
void map(Map function, std::span<const Operand> in, Target y, std::int64_t rows, std::size_t columns, float factor = 1);

/// sum [columns] += Σ over rows of g, and of g·x.
void add_rows(const float* g, float* sum, std::int64_t rows, std::size_t columns);
void add_rows_of_products(const float* g, const float* x, float* sum, std::int64_t rows, std::size_t columns);

/// The gradients of x·m + s·(1 − m) for a row m: g·m, g·(1 − m), and `mix` += Σ over rows of g·(x − s) unless it is
/// null. x and s are not read then.
void lerp_backward(const float* g, const float* x, const float* s, const float* m, Target gx, Target gs, float* mix,
                   std::int64_t rows, std::size_t columns);

/// y = (x − mean)/√(variance + eps)·gamma + beta, row by row.
void norm_forward(const float* x, const float* gamma, const float* beta, Target y, std::int64_t rows,
                  std::size_t columns, float eps);
/// Its gradients for g. gx, and what is added to `gamma_sum` and `beta_sum`, unless they are null.
void norm_backward(const float* g, const float* x, const float* gamma, Target gx, float* gamma_sum, float* beta_sum,
                   std::int64_t rows, std::size_t columns, float eps);

/// To bf16, to nearest even.
void round_to_bf16(const float* x, std::uint16_t* y, std::size_t count);

}  // namespace weft::torch_engine
