// The shift's kernels on a GPU.
#include <gtest/gtest.h>

#include <memory>

#include "tests/gpu/device.h"
#include "torch/cuda/kernels.h"
#include "torch/cuda/testing/shift_cases.h"

namespace weft::cuda {
namespace {

using gpu::Memory;
using testing::decoded;
using testing::encoded;
using testing::ShiftCase;
using testing::ShiftResults;

class GpuShift : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = gpu::missing()) GTEST_SKIP() << *why;
  }
};

ShiftResults run(Element type, const ShiftCase& c) {
  const Element real = testing::real_of(type);
  const ShiftShape shape = testing::shape_of(c);
  const int mixes = static_cast<int>(c.mix.size());
  const std::size_t size = testing::bytes_of(type) * static_cast<std::size_t>(c.x.elements());
  const std::size_t small = testing::bytes_of(real) * static_cast<std::size_t>(shape.channels);
  const Memory x(encoded(c.x, type)), gx(size), scratch(shift_backward_scratch(type, shape, mixes));
  std::vector<std::unique_ptr<Memory>> mix, gy, y, gmix;
  ShiftForward first{};
  ShiftBackward second{};
  first.x = second.x = x.data();
  first.mixes = second.mixes = mixes;
  second.gx = gx.data();
  for (std::size_t m = 0; m < std::max<std::size_t>(c.mix.size(), 1); ++m) {
    y.push_back(std::make_unique<Memory>(size));
    first.y[m] = y[m]->data();
    if (m >= c.mix.size()) break;
    mix.push_back(std::make_unique<Memory>(encoded(c.mix[m], real)));
    gy.push_back(std::make_unique<Memory>(encoded(c.gy[m], type)));
    gmix.push_back(std::make_unique<Memory>(small));
    first.mix[m] = second.mix[m] = mix[m]->data();
    second.gy[m] = gy[m]->data();
    second.gmix[m] = gmix[m]->data();
  }
  const Queue queue{0, nullptr};
  EXPECT_EQ(shift_forward(type, shape, first, queue), nullptr);
  if (mixes > 0) {
    EXPECT_EQ(shift_backward(type, shape, second, scratch.data(), queue), nullptr);
  }
  ShiftResults results{.y = {}, .gx = decoded(gx.bytes(), type, c.x.shape()), .gmix = {}};
  for (const auto& a : y) results.y.push_back(decoded(a->bytes(), type, c.x.shape()));
  for (const auto& a : gmix) results.gmix.push_back(decoded(a->bytes(), real, c.mix[0].shape()));
  return results;
}

TEST_F(GpuShift, MatchesTheReference) {
  for (const ShiftCase& c : testing::shift_cases()) {
    for (const Element type : testing::kTypes) testing::expect_right(c, type, run);
  }
}

}  // namespace
}  // namespace weft::cuda
