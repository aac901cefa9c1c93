// The programs of the CUDA kernels, run on the CPU.
#include "torch/cuda/wkv.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/format.h"
#include "torch/cuda/testing/host_run.h"
#include "torch/cuda/testing/wkv_cases.h"
#include "torch/cuda/wkv_plan.h"

namespace weft::cuda {
namespace {

using testing::decoded;
using testing::encoded;
using testing::WkvCase;
using testing::WkvResults;

struct Order {
  int rows = 1000, tile = kTile;  // at most
  bool backwards = false;
};

// The problem `p` is of no shape yet.
template <class P, class Tensors>
P made(P p, const WkvCase& c, const Order& order, const Tensors& tensors, std::vector<std::byte>& memory) {
  const auto make = [&](Scratch& scratch) {
    return make_wkv<P>(testing::shape_of(c), scratch, P::kParts == 4, std::min(order.rows, P::kRows), order.tile);
  };
  p = testing::with_scratch(make, memory);
  set_tensors(p, tensors);
  return p;
}

template <class E, bool kReleased>
WkvResults run_as(Element type, const WkvCase& c, const Order& order) {
  const Element real = testing::real_of(type);
  const auto k = encoded(c.k, type), v = encoded(c.v, type), gy = encoded(c.gy, type);
  const auto w = encoded(c.w, real), u = encoded(c.u, real);
  auto y = testing::nan_bytes(k.size()), gk = y, gv = y, gw = testing::nan_bytes(w.size()), gu = gw;
  const testing::HostRun host{order.backwards};
  std::vector<std::byte> memory;
  const WkvForward first{k.data(), v.data(), w.data(), u.data(), y.data()};
  forward(made(Wkv<E, kReleased, 2>{}, c, order, first, memory), host);
  const WkvBackward second{k.data(),  v.data(),  w.data(),  u.data(), gy.data(),
                           gk.data(), gv.data(), gw.data(), gu.data()};
  backward(made(Wkv<E, kReleased, 4>{}, c, order, second, memory), host);
  return {.y = decoded(y, type, c.shape()),
          .gradients = {decoded(gk, type, c.shape()), decoded(gv, type, c.shape()), decoded(gw, real, c.w.shape()),
                        decoded(gu, real, c.w.shape())}};
}

WkvResults run(Element type, const WkvCase& c, const Order& order = {}) {
  return testing::with_host_type(type, [&](auto element) {
    using E = decltype(element);
    return has_runs(testing::shape_of(c)) ? run_as<E, true>(type, c, order) : run_as<E, false>(type, c, order);
  });
}

testing::RunWkv in(const Order& order) {
  return [=](Element type, const WkvCase& c) { return run(type, c, order); };
}

TEST(CudaWkv, MatchesTheReference) {
  for (const WkvCase& c : testing::ordinary_cases()) testing::expect_right(c, Element::kF32, in({}));
}

TEST(CudaWkv, MatchesTheReferenceInEveryType) {
  for (const weft::Wkv form : {weft::Wkv::kPaper, weft::Wkv::kReleasedKernel}) {
    for (const std::int64_t t : {31, 200}) {
      for (const Element type : testing::kTypes)
        testing::expect_right(testing::model_case(form, 2, t, 33), type, in({}));
    }
  }
}

TEST(CudaWkv, IsStableForExtremeKeysDecaysAndBonuses) {
  for (const WkvCase& c : testing::extreme_cases()) {
    testing::expect_right(c, Element::kF32, in({}));
    if (c.shape()[1] < 100) testing::expect_right(c, Element::kF64, in({}));
  }
}

// As many chunks, rows and tiles to a run as one likes.
TEST(CudaWkv, MatchesTheReferenceHoweverTokensAreCut) {
  for (const weft::Wkv form : {weft::Wkv::kPaper, weft::Wkv::kReleasedKernel}) {
    for (const std::int64_t t : {33, 130, 500}) {
      const WkvCase c = testing::model_case(form, 2, t, 3);
      for (const int rows : {1, 2, 3, 8}) {
        for (const int tile : {1, 3, 8}) testing::expect_right(c, Element::kF32, in({.rows = rows, .tile = tile}));
      }
    }
  }
}

bool same(const Tensor& a, const Tensor& b) { return std::memcmp(a.raw(), b.raw(), a.bytes()) == 0; }

TEST(CudaWkv, DoesNotDependOnTheOrderOfThreads) {
  for (const weft::Wkv form : {weft::Wkv::kPaper, weft::Wkv::kReleasedKernel}) {
    const WkvCase c = testing::model_case(form, 3, 700, 40);
    const WkvResults a = run(Element::kF32, c), b = run(Element::kF32, c, {.backwards = true});
    EXPECT_TRUE(same(a.y, b.y));
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(same(a.gradients[i], b.gradients[i])) << i;
  }
}

// Far tokens keep their weights to the last digits: exponents do not gather rounding errors on the way.
TEST(CudaWkv, IsAsPreciseForLongSequences) {
  for (const weft::Wkv form : {weft::Wkv::kPaper, weft::Wkv::kReleasedKernel}) {
    testing::expect_right(testing::model_case(form, 1, 4000, 1), Element::kF32, in({}));
  }
}

TEST(CudaWkv, CutsTokensIntoTilesWithinRuns) {
  for (int tokens = 1; tokens < 1500; ++tokens) {
    for (const int run : {tokens, (tokens + 31) / 32}) {
      const Tiling t = Tiling::make(tokens, run, 8);
      EXPECT_EQ(edge<true>(t, 0).token, 0);
      EXPECT_LE(t.tiles_per_chunk, 8);
      EXPECT_GT(t.tiles, (t.chunks - 1) * t.tiles_per_chunk) << "an empty chunk";
      for (int i = 0; i < t.tiles; ++i) {
        const Edge first = edge<true>(t, i), last = edge<true>(t, i + 1);
        const int begin = first.token, end = last.token;
        ASSERT_LT(begin, end);
        ASSERT_LE(end - begin, kTile);
        ASSERT_EQ(begin / run, (end - 1) / run);
        ASSERT_EQ(stretch<false>(first, last).tokens, end - begin);
        ASSERT_EQ(stretch<false>(first, last).enters_run, begin % run == 0);
        if (end < tokens) {
          ASSERT_EQ(stretch<true>(first, last).enters_run, end % run == 0);
        }
        // Of several tiles, too.
        const Edge far = edge<true>(t, i + 7);
        ASSERT_EQ(stretch<false>(first, far).enters_run, (begin + run - 1) / run * run < far.token);
        if (far.token < tokens) {
          ASSERT_EQ(stretch<true>(first, far).enters_run, (begin / run + 1) * run <= far.token);
        }
      }
      ASSERT_EQ(edge<true>(t, t.tiles).token, tokens);
      ASSERT_EQ(edge<true>(t, t.tiles + 5).token, tokens);
      if (run == tokens) {
        ASSERT_EQ(edge<false>(t, t.tiles / 2).token, edge<true>(t, t.tiles / 2).token);
        ASSERT_EQ(edge<false>(t, t.tiles + 5).token, tokens);
      }
    }
  }
}

TEST(CudaWkv, KnowsWhatItIsMadeFor) {
  const auto fits = [](std::int64_t b, std::int64_t t, std::int64_t c) {
    WkvShape shape;
    shape.batch = b, shape.tokens = t, shape.channels = c;
    return shape.fits();
  };
  EXPECT_TRUE(fits(1, 1 << 24, 1));
  EXPECT_FALSE(fits(1, (1 << 24) + 1, 1));
  EXPECT_TRUE(fits(0x7FFFFFFF, 0, 1));
  EXPECT_FALSE(fits(1 << 16, 1, 1 << 15));
  EXPECT_FALSE(fits(std::int64_t{1} << 40, 1, std::int64_t{1} << 40));
}

}  // namespace
}  // namespace weft::cuda
