// Bi-WKV's kernels on a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/gpu/device.h"
#include "torch/cuda/kernels.h"
#include "torch/cuda/testing/wkv_cases.h"

namespace weft::cuda {
namespace {

using gpu::Memory;
using testing::decoded;
using testing::encoded;
using testing::WkvCase;
using testing::WkvResults;

class GpuWkv : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = gpu::missing()) GTEST_SKIP() << *why;
  }
};

void expect_none(Error error) { EXPECT_EQ(error, nullptr) << error; }

// Inputs and results of both passes on the device, the results as raw bytes: y, gk, gv, gw, gu.
std::vector<std::vector<std::byte>> run_raw(Element type, const WkvCase& c) {
  const Element real = testing::real_of(type);
  const Memory k(encoded(c.k, type)), v(encoded(c.v, type)), gy(encoded(c.gy, type));
  const Memory w(encoded(c.w, real)), u(encoded(c.u, real));
  const std::size_t size = testing::bytes_of(type) * static_cast<std::size_t>(c.k.elements());
  const std::size_t small = testing::bytes_of(real) * static_cast<std::size_t>(c.w.elements());
  const Memory y(size), gk(size), gv(size), gw(small), gu(small);
  const WkvShape shape = testing::shape_of(c);
  const Memory first(wkv_forward_scratch(type, shape)), second(wkv_backward_scratch(type, shape));
  cudaStream_t stream = nullptr;
  gpu::check(cudaStreamCreate(&stream));
  gpu::check(cudaDeviceSynchronize());  // the memory is filled on another stream
  const Queue queue{0, stream};
  expect_none(wkv_forward(type, shape, {k.data(), v.data(), w.data(), u.data(), y.data()}, first.data(), queue));
  expect_none(wkv_backward(
      type, shape, {k.data(), v.data(), w.data(), u.data(), gy.data(), gk.data(), gv.data(), gw.data(), gu.data()},
      second.data(), queue));
  gpu::check(cudaStreamSynchronize(stream));
  gpu::check(cudaStreamDestroy(stream));
  return {y.bytes(), gk.bytes(), gv.bytes(), gw.bytes(), gu.bytes()};
}

WkvResults run(Element type, const WkvCase& c) {
  const auto raw = run_raw(type, c);
  const Element real = testing::real_of(type);
  return {.y = decoded(raw[0], type, c.shape()),
          .gradients = {decoded(raw[1], type, c.shape()), decoded(raw[2], type, c.shape()),
                        decoded(raw[3], real, c.w.shape()), decoded(raw[4], real, c.w.shape())}};
}

TEST_F(GpuWkv, MatchesTheReference) {
  for (const WkvCase& c : testing::ordinary_cases()) {
    testing::expect_right(c, Element::kF32, run);
  }
}

TEST_F(GpuWkv, MatchesTheReferenceInEveryType) {
  for (const weft::Wkv form : {weft::Wkv::kPaper, weft::Wkv::kReleasedKernel}) {
    for (const std::int64_t t : {31, 200}) {
      for (const Element type : testing::kTypes) testing::expect_right(testing::model_case(form, 2, t, 33), type, run);
    }
  }
}

TEST_F(GpuWkv, IsStableForExtremeKeysDecaysAndBonuses) {
  for (const WkvCase& c : testing::extreme_cases()) {
    for (const Element type : {Element::kF32, Element::kF64}) testing::expect_right(c, type, run);
  }
}

TEST_F(GpuWkv, IsAsPreciseForLongSequences) {
  for (const weft::Wkv form : {weft::Wkv::kPaper, weft::Wkv::kReleasedKernel}) {
    testing::expect_right(testing::model_case(form, 1, 4000, 2), Element::kF32, run);
  }
}

TEST_F(GpuWkv, GivesTheSameBitsEveryTime) {
  for (const weft::Wkv form : {weft::Wkv::kPaper, weft::Wkv::kReleasedKernel}) {
    const WkvCase c = testing::model_case(form, 5, 3000, 192);
    const auto once = run_raw(Element::kBF16, c);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(run_raw(Element::kBF16, c), once);
  }
}

// More chunks than a grid is high, and more columns than one is wide there. Values that are all alike have that mean,
// and a mean owes its gradient to its values: the sum of gv is that of gy, and nothing is left for k, w and u.
TEST_F(GpuWkv, TakesAnyNumberOfTokensAndColumns) {
  for (const Shape& shape : {Shape{1, 64 * 65536 + 5, 1}, Shape{70000, 3, 33}, Shape{3, 70000, 7}}) {
    for (const weft::Wkv form : {weft::Wkv::kPaper, weft::Wkv::kReleasedKernel}) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(form), shape));
      WkvCase c = testing::model_case(form, shape[0], shape[1], shape[2]);
      for (float& v : c.v.mutable_data<float>()) v = 3;
      const WkvResults got = run(Element::kF32, c);
      double worst = 0, gk = 0;
      std::vector<double> gv(static_cast<std::size_t>(shape[2])), gy = gv, size = gv;
      for (std::size_t i = 0; i < static_cast<std::size_t>(c.k.elements()); ++i) {
        worst = std::max(worst, std::abs(got.y.data<double>()[i] - 3));
        gk = std::max(gk, std::abs(got.gradients[0].data<double>()[i]));
        const std::size_t channel = i % gv.size();
        gv[channel] += got.gradients[1].data<double>()[i];
        gy[channel] += c.gy.data<float>()[i];
        size[channel] += std::abs(c.gy.data<float>()[i]);
      }
      // Numerator and denominator are three times each other up to the roundings of their sums; gv's terms, too. Chunks
      // are added up one after the other, up to 4097 by one thread: a random walk of as many steps of 2^-24.
      const double tolerance = 5e-6 + 4 * 0x1p-24 * std::sqrt(4097);
      EXPECT_LE(worst, 3 * tolerance);
      EXPECT_LE(gk, 6 * tolerance * testing::largest_of(got.gradients[1]));
      for (std::size_t i = 0; i < gv.size(); ++i) EXPECT_NEAR(gv[i], gy[i], tolerance * size[i]);
    }
  }
}

TEST_F(GpuWkv, TakesEmptyTensors) {
  for (const Shape& shape : {Shape{2, 0, 5}, Shape{0, 7, 5}, Shape{2, 3, 0}}) {
    const WkvResults got = run(Element::kF32, testing::model_case(weft::Wkv::kPaper, shape[0], shape[1], shape[2]));
    for (const std::size_t i : {2, 3}) EXPECT_EQ(testing::largest_of(got.gradients[i]), 0);
  }
}

}  // namespace
}  // namespace weft::cuda
