// The programs of the CUDA kernels, run on the CPU.
#include "torch/cuda/shift.h"

#include <gtest/gtest.h>

#include "torch/cuda/shift_plan.h"
#include "torch/cuda/testing/host_run.h"
#include "torch/cuda/testing/shift_cases.h"

namespace weft::cuda {
namespace {

using testing::decoded;
using testing::encoded;
using testing::nan_bytes;
using testing::ShiftCase;
using testing::ShiftResults;

template <class P>
ShiftResults run_as(Element type, const ShiftCase& c, const testing::HostRun& host) {
  const Element real = testing::real_of(type);
  const auto x = encoded(c.x, type);
  std::vector<std::vector<std::byte>> mix, gy, y(P::kResults, nan_bytes(x.size())), gmix;
  ShiftForward first{};
  ShiftBackward second{};
  first.x = second.x = x.data();
  for (const Tensor& a : c.mix) {
    mix.push_back(encoded(a, real));
    gmix.push_back(nan_bytes(mix.back().size()));
  }
  for (const Tensor& a : c.gy) gy.push_back(encoded(a, type));
  auto gx = nan_bytes(x.size());
  first.mixes = second.mixes = P::kMixes;
  second.gx = gx.data();
  for (std::size_t m = 0; m < P::kResults; ++m) first.y[m] = y[m].data();
  for (std::size_t m = 0; m < P::kMixes; ++m) {
    first.mix[m] = second.mix[m] = mix[m].data();
    second.gy[m] = gy[m].data();
    second.gmix[m] = gmix[m].data();
  }
  const auto run = [&](bool backward, const auto& tensors) {
    std::vector<std::byte> memory;
    const auto make = [&](Scratch& scratch) { return make_shift<P>(testing::shape_of(c), scratch, backward); };
    P p = testing::with_scratch(make, memory);
    set_tensors(p, tensors);
    shift_programs(p, host, backward);
  };
  run(false, first);
  if (P::kMixes > 0) run(true, second);
  ShiftResults results{.y = {}, .gx = decoded(gx, type, c.x.shape()), .gmix = {}};
  for (const auto& a : y) results.y.push_back(decoded(a, type, c.x.shape()));
  for (const auto& a : gmix) results.gmix.push_back(decoded(a, real, c.mix[0].shape()));
  return results;
}

testing::RunShift in(const testing::HostRun& host) {
  return [=](Element type, const ShiftCase& c) {
    return testing::with_host_type(type, [&](auto element) {
      using E = decltype(element);
      switch (c.mix.size()) {
        case 0:
          return run_as<Shift<E, 0>>(type, c, host);
        case 1:
          return run_as<Shift<E, 1>>(type, c, host);
        case 2:
          return run_as<Shift<E, 2>>(type, c, host);
        default:
          return run_as<Shift<E, 3>>(type, c, host);
      }
    });
  };
}

TEST(CudaShift, MatchesTheReference) {
  for (const ShiftCase& c : testing::shift_cases()) {
    for (const Element type : testing::kTypes) testing::expect_right(c, type, in({}));
  }
}

TEST(CudaShift, DoesNotDependOnTheOrderOfThreads) {
  for (const ShiftCase& c : testing::shift_cases()) {
    testing::expect_right(c, Element::kF32, in({.backwards = true}));
  }
}

TEST(CudaShift, KnowsWhatItIsMadeFor) {
  ShiftShape shape;
  shape.batch = 1 << 20, shape.height = 1 << 15, shape.width = 1 << 15, shape.channels = 7;
  EXPECT_TRUE(shape.fits());
  shape.width = 1 << 16;
  EXPECT_FALSE(shape.fits());
  shape.width = std::int64_t{1} << 40;
  EXPECT_FALSE(shape.fits());
}

}  // namespace
}  // namespace weft::cuda
