// The CUDA kernels as libtorch's tensors and autograd see them.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "core/format.h"
#include "torch/bi_wkv.h"
#include "torch/cuda/ops.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::variable_list;

class GpuTorch : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "libtorch finds no CUDA device";
    torch::manual_seed(1);
  }
};

Tensor normal(at::IntArrayRef sizes, at::ScalarType type) {
  return at::randn(sizes, at::TensorOptions(at::kCUDA).dtype(at::kDouble)).to(type);
}

double error(const Tensor& got, const Tensor& want) {
  return ((got.to(at::kDouble) - want).abs().max() / (want.abs().max() + 1e-6)).item().toDouble();
}

variable_list leaves(const variable_list& tensors, at::ScalarType type) {
  variable_list result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.detach().to(type).requires_grad_());
  return result;
}

TEST_F(GpuTorch, BiWkvAndItsGradientsAgreeWithTheTreeInF64) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    for (const Wkv wkv : {Wkv::kPaper, Wkv::kReleasedKernel}) {
      SCOPED_TRACE(fmt::format("{} {}", c10::toString(type), name_of(wkv)));
      const at::ScalarType real = type == at::kDouble ? at::kDouble : at::kFloat;
      const variable_list in = {normal({3, 500, 40}, type), normal({3, 500, 40}, type), normal({40}, real) * 0.01,
                                normal({40}, real)};
      const Tensor gy = normal({3, 500, 40}, type);
      ASSERT_TRUE(has_cuda_wkv(in[0]));
      variable_list got_in, want_in;
      for (const Tensor& tensor : in) {
        got_in.push_back(tensor.detach().clone().requires_grad_());
        want_in.push_back(tensor.detach().to(at::kDouble).requires_grad_());
      }
      const Tensor got = bi_wkv(got_in[0], got_in[1], got_in[2], got_in[3], wkv);
      const Tensor want = bi_wkv_tree(want_in[0], want_in[1], want_in[2], want_in[3], wkv);
      EXPECT_EQ(got.scalar_type(), type);
      const auto gradients = torch::autograd::grad({got}, got_in, {gy});
      const auto want_gradients = torch::autograd::grad({want}, want_in, {gy.to(at::kDouble)});
      // Results are stored with 8 and 11 bits; within, sums of 500 terms in f32, with those of gw up to 500 times as
      // large as they add up to.
      const double stored = type == at::kBFloat16 ? 0x1p-8 : type == at::kHalf ? 0x1p-11 : 0;
      const double computed = type == at::kDouble ? 1e-12 : 1e-5;
      EXPECT_LE(error(got, want.detach()), stored + computed);
      for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(gradients[i].scalar_type(), got_in[i].scalar_type());
        EXPECT_LE(error(gradients[i], want_gradients[i]), (i < 2 ? stored : 0) + (i == 2 ? 10 : 1) * computed) << i;
      }
    }
  }
}

// Decay and bonus in another type than the keys, tensors with gaps, and another stream.
TEST_F(GpuTorch, BiWkvTakesTensorsOfAnyLayoutAndType) {
  const Tensor kv = normal({2, 100, 64}, at::kBFloat16);
  const Tensor k = kv.slice(2, 0, 32), v = kv.slice(2, 32, 64);
  const Tensor w = normal({32}, at::kBFloat16) * 0.01, u = normal({32}, at::kDouble);
  variable_list in = {k, v, w, u};
  for (Tensor& tensor : in) tensor = tensor.detach().requires_grad_();
  const Tensor y = bi_wkv(in[0], in[1], in[2], in[3], Wkv::kPaper);
  const Tensor want = bi_wkv_tree(k.to(at::kDouble), v.to(at::kDouble), w.to(at::kDouble), u, Wkv::kPaper);
  EXPECT_LE(error(y, want), 0x1p-8 + 1e-5);
  const auto gradients = torch::autograd::grad({y.sum()}, in);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(gradients[i].scalar_type(), in[i].scalar_type()) << i;
}

TEST_F(GpuTorch, ShiftAndMixesAgreeWithLibtorchsOperators) {
  const QShift shift{.height = 6, .width = 9, .pixels = 1, .gamma = 0.25};
  for (const std::size_t mixes : {1, 2, 3}) {
    variable_list in = {normal({4, 54, 40}, at::kFloat)};
    for (std::size_t m = 0; m < mixes; ++m) in.push_back(normal({40}, at::kFloat));
    const variable_list got_in = leaves(in, at::kFloat), want_in = leaves(in, at::kDouble);
    ASSERT_TRUE(has_cuda_shift(in[0], shift));
    const variable_list got = cuda_shift_and_mix(got_in[0], std::span(got_in).subspan(1), shift);

    // The shift by hand: group after group, in f64.
    const Tensor grid = want_in[0].reshape({4, 6, 9, 40});
    const auto cuts = shift.cuts(40);
    const auto moved = [&](std::size_t i, std::int64_t axis, std::int64_t steps) {
      const Tensor group = grid.slice(3, cuts[i], cuts[i + 1]);
      const Tensor none = at::zeros_like(group.narrow(axis, 0, 1));
      const std::int64_t length = group.size(axis) - 1;
      return steps > 0 ? at::cat({none, group.narrow(axis, 0, length)}, axis)
                       : at::cat({group.narrow(axis, 1, length), none}, axis);
    };
    const Tensor shifted =
        at::cat({moved(0, 2, 1), moved(1, 2, -1), moved(2, 1, 1), moved(3, 1, -1)}, 3).reshape({4, 54, 40});
    variable_list want, cotangents, wide_cotangents;
    for (std::size_t m = 0; m < mixes; ++m) {
      want.push_back(want_in[0] * want_in[m + 1] + shifted * (1 - want_in[m + 1]));
      cotangents.push_back(normal({4, 54, 40}, at::kFloat));
      wide_cotangents.push_back(cotangents.back().to(at::kDouble));
      EXPECT_LE(error(got[m], want[m].detach()), 1e-6);  // two products in f32
    }
    const auto gradients = torch::autograd::grad(got, got_in, cotangents);
    const auto want_gradients = torch::autograd::grad(want, want_in, wide_cotangents);
    // Sums of up to six products, and of 216.
    for (std::size_t i = 0; i < gradients.size(); ++i) EXPECT_LE(error(gradients[i], want_gradients[i]), 5e-6) << i;
    // The shift alone.
    EXPECT_TRUE(at::equal(cuda_shift(in[0], shift), shifted.detach().to(at::kFloat)));
  }
}

}  // namespace
}  // namespace weft::torch_engine
