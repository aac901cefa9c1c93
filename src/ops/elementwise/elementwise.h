// Operators that compute each element of the result from one element of each input, which broadcast as in NumPy.
//
//   add           y = a + b
//   mul           y = a · b
//   scale         y = factor · x
//   lerp          y = x · mix + shifted · (1 − mix)      x and shifted alike, mix broadcasts to them
//   sigmoid       y = 1 / (1 + e^−x)
//   tanh          y = tanh x
//   relu          y = max(x, 0)
//   squared_relu  y = max(x, 0)²
//   gelu          y = x · (1 + erf(x/√2)) / 2            (Hendrycks, Gimpel 2016, arXiv:1606.08415; PyTorch's exact
//   form)
//   exp           y = e^x
//   clamp         y = min(max(x, low), high)
//   silu          y = x / (1 + e^−x)                     ("swish": Ramachandran et al. 2017, arXiv:1710.05941)
//
// They count no multiply-accumulates: as in the official counters, only products of matrices, convolutions and mixers
// do. A new operator is a struct with its formula here, its name in the variant below and one line of SIMD code.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <memory>
#include <numbers>
#include <span>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct Add {
  static constexpr std::string_view kName = "add";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 2;
  static double apply(double a, double b) { return a + b; }
  bool operator==(const Add&) const = default;
};

struct Mul {
  static constexpr std::string_view kName = "mul";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 2;
  static double apply(double a, double b) { return a * b; }
  bool operator==(const Mul&) const = default;
};

struct Scale {
  float factor = 1;

  static constexpr std::string_view kName = "scale";
  static constexpr std::tuple kFields{Field{"factor", &Scale::factor}};
  static constexpr std::size_t kArity = 1;
  double apply(double x) const { return factor * x; }
  bool operator==(const Scale&) const = default;
};

struct Lerp {
  static constexpr std::string_view kName = "lerp";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 3;
  static double apply(double x, double shifted, double mix) { return x * mix + shifted * (1 - mix); }
  bool operator==(const Lerp&) const = default;
};

struct Sigmoid {
  static constexpr std::string_view kName = "sigmoid";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 1;
  static double apply(double x) { return 1 / (1 + std::exp(-x)); }
  bool operator==(const Sigmoid&) const = default;
};

struct Tanh {
  static constexpr std::string_view kName = "tanh";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 1;
  static double apply(double x) { return std::tanh(x); }
  bool operator==(const Tanh&) const = default;
};

struct Relu {
  static constexpr std::string_view kName = "relu";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 1;
  static double apply(double x) { return x < 0 ? 0 : x; }
  bool operator==(const Relu&) const = default;
};

struct SquaredRelu {
  static constexpr std::string_view kName = "squared_relu";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 1;
  static double apply(double x) { return x < 0 ? 0 : x * x; }
  bool operator==(const SquaredRelu&) const = default;
};

struct Gelu {
  static constexpr std::string_view kName = "gelu";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 1;
  static double apply(double x) { return 0.5 * x * std::erfc(-x * std::numbers::sqrt2 / 2); }
  bool operator==(const Gelu&) const = default;
};

struct Exp {
  static constexpr std::string_view kName = "exp";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 1;
  static double apply(double x) { return std::exp(x); }
  bool operator==(const Exp&) const = default;
};

struct Clamp {
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();

  static constexpr std::string_view kName = "clamp";
  static constexpr std::tuple kFields{Field{"low", &Clamp::low}, Field{"high", &Clamp::high}};
  static constexpr std::size_t kArity = 1;
  double apply(double x) const { return x < low ? low : x > high ? high : x; }
  bool operator==(const Clamp&) const = default;
};

struct Silu {
  static constexpr std::string_view kName = "silu";
  static constexpr std::tuple kFields{};
  static constexpr std::size_t kArity = 1;
  static double apply(double x) { return x / (1 + std::exp(-x)); }
  bool operator==(const Silu&) const = default;
};

/// Any of them. They share one implementation, so each converts to this where one is asked for.
using Elementwise = std::variant<Add, Mul, Scale, Lerp, Sigmoid, Tanh, Relu, SquaredRelu, Gelu, Exp, Clamp, Silu>;

std::vector<TensorType> infer(const Elementwise& attributes, std::span<const TensorType> in);
void reference(const Elementwise& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const Elementwise& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_elementwise_kernel(const Elementwise& attributes, const KernelRequest& request);
template <std::convertible_to<Elementwise> A>  // exact, where a conversion to Operation would do as well
std::unique_ptr<Kernel> make_kernel(const A& attributes, const KernelRequest& request) {
  return make_elementwise_kernel(attributes, request);
}

/// The same as what a product may do in passing; kNone when there is no such thing.
Activation activation_of(const Operation& operation);

/// All throw ShapeError when the shapes do not broadcast.
Value add(Value a, Value b);
Value mul(Value a, Value b);
Value scale(Value x, float factor);
Value lerp(Value x, Value shifted, Value mix);
Value sigmoid(Value x);
Value tanh(Value x);
Value relu(Value x);
Value squared_relu(Value x);
Value gelu(Value x);
Value exp(Value x);
/// low ≤ high
Value clamp(Value x, float low, float high);
Value silu(Value x);

}  // namespace weft
