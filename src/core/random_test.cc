#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace weft {
namespace {

TEST(Random, IsTheSameEverywhere) {
  // SplitMix64 as published, from state 0: the first number is mix(2^64 / golden ratio).
  Random random({});
  EXPECT_EQ(random.bits(), 0xE220A8397B1DCDAFU);
  EXPECT_EQ(random.bits(), 0x6E789E6AA1B965F4U);
  EXPECT_EQ(random.bits(), 0x06C45D188009454FU);
}

TEST(Random, KeysGiveDifferentStreams) {
  std::set<std::uint64_t> first;
  for (std::uint64_t a = 0; a < 20; ++a) {
    first.insert(Random({a}).bits());
    for (std::uint64_t b = 0; b < 20; ++b) first.insert(Random({a, b}).bits());
  }
  EXPECT_EQ(first.size(), 420U);
  EXPECT_EQ(Random({3, 4}).bits(), Random({3, 4}).bits());
}

// Standard errors below are of the mean of n draws; five of them are passed once in two million runs of another seed.
constexpr int kDraws = 20000;

TEST(Random, BelowIsEven) {
  for (const std::int64_t n : {1, 2, 7, 64}) {
    std::vector<int> counts(static_cast<std::size_t>(n));
    Random random({static_cast<std::uint64_t>(n)});
    for (int i = 0; i < kDraws; ++i) ++counts.at(static_cast<std::size_t>(random.below(n)));
    const double expected = static_cast<double>(kDraws) / static_cast<double>(n);
    for (const int count : counts) EXPECT_NEAR(count, expected, 5 * std::sqrt(expected));
  }
  Random large({});
  for (int i = 0; i < 100; ++i) EXPECT_LT(large.below((std::int64_t{1} << 62) + 1), (std::int64_t{1} << 62) + 1);
}

struct Moments {
  double mean = 0, variance = 0, low = 1e300, high = -1e300;
};

template <class Draw>
Moments moments(const Draw& draw) {
  Random random({5});
  Moments m;
  double squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = draw(random);
    m.mean += x / kDraws;
    squares += x * x / kDraws;
    m.low = std::min(m.low, x);
    m.high = std::max(m.high, x);
  }
  m.variance = squares - m.mean * m.mean;
  return m;
}

TEST(Random, HasTheMomentsOfItsDistributions) {
  const double root = std::sqrt(static_cast<double>(kDraws));
  const Moments uniform = moments([](Random& r) { return r.uniform(2, 4); });
  EXPECT_NEAR(uniform.mean, 3, 5 * std::sqrt(1.0 / 3) / root);
  EXPECT_GE(uniform.low, 2);
  EXPECT_LT(uniform.high, 4);

  const Moments normal = moments([](Random& r) { return r.normal(); });
  EXPECT_NEAR(normal.mean, 0, 5 / root);
  EXPECT_NEAR(normal.variance, 1, 5 * std::sqrt(2.0) / root);

  for (const double shape : {0.3, 1.0, 4.5}) {  // mean and variance are both the shape; the fourth moment 3a² + 6a
    const Moments gamma = moments([=](Random& r) { return r.gamma(shape); });
    EXPECT_NEAR(gamma.mean, shape, 5 * std::sqrt(shape) / root);
    EXPECT_NEAR(gamma.variance, shape, 5 * std::sqrt(2 * shape * shape + 6 * shape) / root);
    EXPECT_GE(gamma.low, 0);
  }
  for (const double alpha : {0.2, 0.8, 1.0, 3.0}) {
    const Moments beta = moments([=](Random& r) { return r.beta(alpha, alpha); });
    const double variance = 0.25 / (2 * alpha + 1);
    EXPECT_NEAR(beta.mean, 0.5, 5 * std::sqrt(variance) / root);
    EXPECT_NEAR(beta.variance, variance,
                5 * variance / root);  // its distribution is no more peaked than the normal one
    EXPECT_GE(beta.low, 0);
    EXPECT_LE(beta.high, 1);
  }
}

TEST(Random, ChancesAreKept) {
  const Moments rare = moments([](Random& r) { return r.chance(0.1) ? 1.0 : 0.0; });
  EXPECT_NEAR(rare.mean, 0.1, 5 * std::sqrt(0.09 / kDraws));
  EXPECT_EQ(moments([](Random& r) { return r.chance(0) ? 1.0 : 0.0; }).high, 0);
  EXPECT_EQ(moments([](Random& r) { return r.chance(1) ? 1.0 : 0.0; }).low, 1);
}

TEST(Random, TinyShapesSitAtTheEnds) {
  Random random({1});
  double sum = 0;
  for (int i = 0; i < 1000; ++i) {
    const double x = random.beta(1e-4, 1e-4);
    ASSERT_TRUE(x >= 0 && x <= 1);
    sum += x;
  }
  EXPECT_NEAR(sum, 500, 5 * std::sqrt(250.0));
}

}  // namespace
}  // namespace weft
