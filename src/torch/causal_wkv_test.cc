#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/format.h"
#include "graph/evaluate.h"
#include "ops/causal_wkv/causal_wkv_grad.h"
#include "ops/testing/op_test.h"
#include "torch/engine.h"

namespace weft {
namespace {

using testing::random_tensor;
using testing::relative_error;

// y and the next state of some tokens.
struct Mixer {
  Graph graph{"causal_wkv"};
  std::vector<Tensor> in;

  Mixer(Shape shape, float keys) {
    const Shape channels{shape[2]};
    in = {random_tensor(shape, 1, keys), random_tensor(shape, 2), random_tensor(channels, 3, 0.3F, 0.3F),
          random_tensor(channels, 4), random_tensor({shape[0], 3, shape[2]}, 5)};
    const auto state = in[4].mutable_data<float>();
    for (std::size_t i = 0; i < state.size(); ++i) {
      if (i / static_cast<std::size_t>(shape[2]) % 3 == 1) state[i] = std::abs(state[i]) + 1;
    }
    std::vector<Value> values;
    for (const Tensor& tensor : in) values.push_back(graph.input(fmt::format("x{}", values.size()), tensor.type()));
    const CausalWkvResult result = causal_wkv(values[0], values[1], values[2], values[3], values[4]);
    graph.output("y", result.y);
    graph.output("next", result.next);
  }
};

TEST(TorchCausalWkv, ComputesWhatTheReferenceDoes) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    const auto engine = load_torch_engine({.dtype = dtype});
    for (const std::int64_t tokens : {0, 1, 2, 3, 31, 64, 65, 300}) {
      for (const float keys : {1.0F, 100.0F}) {
        SCOPED_TRACE(fmt::format("{} T={} k ~ {}", name_of(dtype), tokens, keys));
        const Mixer m({2, tokens, 5}, keys);
        const std::vector<Tensor> got = engine->run(m.graph, {}, m.in), want = evaluate_reference(m.graph, {}, m.in);
        // In f32 as the kernel's own test says. In f64 exponents of up to some 300 are rounded to 2^-45.
        const double tolerance = dtype == DType::kF32 ? 1e-6 : 300 * 0x1p-52;
        ASSERT_EQ(got.size(), 2U);
        for (std::size_t i = 0; i < 2; ++i) EXPECT_LE(relative_error(got[i], want[i]), tolerance) << i;
      }
    }
  }
}

double loss(const Mixer& m, const std::vector<Tensor>& in, const std::vector<Tensor>& cotangents) {
  const std::vector<Tensor> out = evaluate_reference(m.graph, {}, in);
  double sum = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    for (std::size_t j = 0; j < static_cast<std::size_t>(out[i].elements()); ++j) {
      sum += out[i].data<double>()[j] * double{cotangents[i].data<float>()[j]};
    }
  }
  return sum;
}

// Through y, through the next state, and through both.
TEST(TorchCausalWkv, DifferentiatesBothResults) {
  const Mixer m({2, 9, 3}, 1);
  for (const bool of_y : {false, true}) {
    for (const bool of_next : {false, true}) {
      if (!of_y && !of_next) continue;
      const std::vector<Tensor> cotangents = {random_tensor({2, 9, 3}, 6, of_y ? 1.0F : 0.0F),
                                              random_tensor({2, 3, 3}, 7, of_next ? 1.0F : 0.0F)};
      std::vector<Tensor> slopes;
      for (std::size_t input = 0; input < m.in.size(); ++input) {
        slopes.emplace_back(DType::kF64, m.in[input].shape());
        for (std::size_t i = 0; i < static_cast<std::size_t>(m.in[input].elements()); ++i) {
          constexpr double kStep = 1e-5;  // an error of h²/6 times a third derivative, and of 2^-53·loss/h
          std::vector<Tensor> moved;
          for (const Tensor& x : m.in) moved.push_back(x.to(DType::kF64));
          double& x = moved[input].mutable_data<double>()[i];
          x += kStep;
          const double above = loss(m, moved, cotangents);
          x -= 2 * kStep;
          slopes.back().mutable_data<double>()[i] = (above - loss(m, moved, cotangents)) / (2 * kStep);
        }
      }
      for (const DType dtype : {DType::kF32, DType::kF64}) {
        const auto engine = load_torch_engine({.dtype = dtype});
        const TorchGradients got = engine->differentiate(m.graph, {}, m.in, cotangents);
        for (std::size_t i = 0; i < m.in.size(); ++i) {
          EXPECT_LE(relative_error(got.inputs[i], slopes[i]), dtype == DType::kF32 ? 1e-6 : 1e-8)
              << name_of(dtype) << " input " << i << (of_y ? " y" : "") << (of_next ? " next" : "");
        }
      }
    }
  }
}

// The tree, and the kernel, beside the direct sums.
TEST(TorchCausalWkv, DifferentiatesLongerSequences) {
  for (const float keys : {1.0F, 30.0F}) {
    const Mixer m({1, 300, 3}, keys);
    const std::vector<Tensor> cotangents = {random_tensor({1, 300, 3}, 6), Tensor::zeros({DType::kF32, {1, 3, 3}})};
    std::vector<Tensor> wide, want;
    for (const Tensor& x : m.in) {
      wide.push_back(x.to(DType::kF64));
      want.emplace_back(DType::kF64, x.shape());
    }
    const Tensor gy = cotangents[0].to(DType::kF64);
    causal_wkv_backward_reference(
        {1, 300, 3},
        {wide[0].data<double>(), wide[1].data<double>(), wide[2].data<double>(), wide[3].data<double>(),
         wide[4].data<double>(), gy.data<double>()},
        {want[0].mutable_data<double>(), want[1].mutable_data<double>(), want[2].mutable_data<double>(),
         want[3].mutable_data<double>(), want[4].mutable_data<double>()});
    for (const DType dtype : {DType::kF32, DType::kF64}) {
      const auto engine = load_torch_engine({.dtype = dtype});
      const TorchGradients got = engine->differentiate(m.graph, {}, m.in, cotangents);
      for (std::size_t i = 0; i < want.size(); ++i) {
        // Results rounded to f32; in f64 exponents of some 100 rounded to 2^-46.
        EXPECT_LE(relative_error(got.inputs[i], want[i]), dtype == DType::kF32 ? 0x1p-23 : 1e-12)
            << name_of(dtype) << " input " << i << " k ~ " << keys;
      }
    }
  }
}

// From a state before the first token, whose exponent is −1e30.
TEST(TorchCausalWkv, StartsFromNothing) {
  Mixer m({2, 40, 3}, 1);
  const auto state = m.in[4].mutable_data<float>();
  for (std::size_t i = 0; i < state.size(); ++i) state[i] = i / 3 % 3 == 2 ? CausalWkv::kEmptyExponent : 0;
  const std::vector<Tensor> cotangents = {random_tensor({2, 40, 3}, 6), random_tensor({2, 3, 3}, 7)};
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    const auto engine = load_torch_engine({.dtype = dtype});
    const TorchGradients got = engine->differentiate(m.graph, {}, m.in, cotangents);
    const std::vector<Tensor> want = evaluate_reference(m.graph, {}, m.in);
    for (std::size_t i = 0; i < 2; ++i) EXPECT_LE(relative_error(got.outputs[i], want[i]), 1e-6);
    for (const Tensor& gradient : got.inputs) {
      const Tensor wide = gradient.to(DType::kF64);
      for (const double value : wide.data<double>()) EXPECT_TRUE(std::isfinite(value));
    }
    const Tensor of_state = got.inputs[4].to(DType::kF64);
    for (const double value : of_state.data<double>()) EXPECT_EQ(value, 0);
  }
}

}  // namespace
}  // namespace weft
