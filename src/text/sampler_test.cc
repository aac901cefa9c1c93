#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "core/random.h"
#include "io/testing/files.h"
#include "weft/text.h"

namespace weft {
namespace {

using testing::refuses;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(std::size_t n, std::uint64_t seed, double spread = 3) {
  Random random({seed});
  std::vector<float> logits(n);
  for (float& logit : logits) logit = static_cast<float>(spread * random.normal());
  return logits;
}

// What the filters leave, by full sorting: the definition.
std::vector<double> distribution(const std::vector<float>& logits, const SamplingOptions& options) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(options.top_k)));
  std::vector<double> p(logits.size());
  double total = 0;
  for (const std::size_t i : order) total += p[i] = std::exp((logits[i] - logits[order[0]]) / options.temperature);
  double sum = 0;
  for (const std::size_t i : order) {
    const bool enough = sum >= options.top_p * total && sum > 0;
    if (enough) p[i] = 0;
    sum += p[i];
  }
  for (double& x : p) x /= sum;
  return p;
}

TEST(Sampler, DrawsFromTheDistribution) {
  const SamplingOptions kCases[] = {
      {},
      {.temperature = 0.7},
      {.temperature = 2, .top_k = 5},
      {.top_p = 0.8},
      {.temperature = 1.3, .top_p = 0.6, .top_k = 10},
      {.top_p = 0},
      {.top_k = 1},
      {.top_p = 0.999999, .top_k = 1000},
  };
  const std::vector<float> logits = random_logits(40, 2, 1.5);
  constexpr int kDraws = 4000;
  for (SamplingOptions options : kCases) {
    options.seed = 9;
    const std::vector<double> p = distribution(logits, options);
    Sampler sampler(options);
    std::vector<int> counts(logits.size());
    for (int i = 0; i < kDraws; ++i) ++counts.at(static_cast<std::size_t>(sampler.next(logits)));
    for (std::size_t i = 0; i < p.size(); ++i) {
      // Five standard errors; what the filters take away is never drawn.
      EXPECT_NEAR(counts[i], kDraws * p[i], 5 * std::sqrt(kDraws * p[i] * (1 - p[i])) + 1e-9) << "token " << i;
    }
  }
}

TEST(Sampler, FiltersAsFullSortingDoes) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    std::vector<float> logits = random_logits(3000, seed, seed % 3 == 0 ? 0.01 : 4);
    for (std::size_t i = 0; i < logits.size(); i += 7) logits[i] = logits[i / 2];  // equals
    if (seed % 5 == 0) std::ranges::fill(logits, 1.0F);
    const SamplingOptions options = {.temperature = 0.5 + 0.1 * static_cast<double>(seed % 7),
                                     .top_p = seed % 4 == 0 ? 1 : 0.03 * static_cast<double>(seed),
                                     .top_k = seed % 2 == 0 ? 0 : static_cast<int>(seed * 50),
                                     .seed = seed};
    const std::vector<double> p = distribution(logits, options);
    Sampler sampler(options);
    for (int i = 0; i < 20; ++i) {
      const auto token = static_cast<std::size_t>(sampler.next(logits));
      // The draw is where the same random number falls in the distribution, tokens in their order.
      double below = 0;
      for (std::size_t t = 0; t < token; ++t) below += p[t];
      const double uniform = Random({seed, static_cast<std::uint64_t>(i)}).uniform();
      ASSERT_GT(p[token], 0) << "seed " << seed;
      // Weights are f32, so that 3000 of them are off by 2^-24 each at most, relatively.
      EXPECT_GE(uniform, below - 1e-6);
      EXPECT_LE(uniform, below + p[token] + 1e-6);
    }
  }
}

TEST(Sampler, IsGreedyAtZero) {
  Sampler sampler({.temperature = 0, .top_p = 0.1});
  EXPECT_EQ(sampler.next(std::vector<float>{1, 5, 5, -kInfinity}), 1);
  EXPECT_EQ(sampler.next(std::vector<float>{-kInfinity, -7}), 1);
  EXPECT_EQ(sampler.state().position, 2U);
  // The limit of small temperatures.
  Sampler cold({.temperature = 1e-300});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(cold.next(std::vector<float>{1, 5, 4.999F}), 1);
}

TEST(Sampler, NeverDrawsMinusInfinity) {
  std::vector<float> logits(1000, -kInfinity);
  logits[7] = -1e30F;
  logits[500] = -1e30F;
  for (const SamplingOptions& options : {SamplingOptions{}, SamplingOptions{.top_p = 0.5, .top_k = 600}}) {
    Sampler sampler(options);
    for (int i = 0; i < 50; ++i) {
      const std::int32_t token = sampler.next(logits);
      EXPECT_TRUE(token == 7 || token == 500) << token;
    }
  }
}

TEST(Sampler, PenalisesWhatWasSeen) {
  // Greedy choices show the penalised logits: token 0 stays ahead of token 1 or falls behind it.
  const auto choice = [](SamplingOptions options, float seen, float other, int times) {
    options.temperature = 0;
    Sampler sampler(options);
    for (int i = 0; i < times; ++i) sampler.accept(0);
    return sampler.next(std::vector<float>{seen, other});
  };
  EXPECT_EQ(choice({.repetition_penalty = 2}, 4, 1.9F, 1), 0);  // 4/2 = 2
  EXPECT_EQ(choice({.repetition_penalty = 2}, 4, 2.1F, 3), 1);
  EXPECT_EQ(choice({.repetition_penalty = 2}, -1, -1.9F, 1), 1);  // −1 · 2 = −2
  EXPECT_EQ(choice({.repetition_penalty = 2}, -1, -2.1F, 1), 0);
  EXPECT_EQ(choice({.presence_penalty = 1}, 4, 2.9F, 5), 0);
  EXPECT_EQ(choice({.presence_penalty = 1}, 4, 3.1F, 5), 1);
  EXPECT_EQ(choice({.frequency_penalty = 0.5}, 4, 1.4F, 5), 0);  // 4 − 5 · 0.5
  EXPECT_EQ(choice({.frequency_penalty = 0.5}, 4, 1.6F, 5), 1);
  EXPECT_EQ(choice({.frequency_penalty = -1}, 1, 3.9F, 3), 0);
  EXPECT_EQ(choice({.frequency_penalty = 1e300}, 1, -5, 3), 1);
  EXPECT_EQ(choice({.repetition_penalty = 2}, 4, 3, 0), 0);
  // Two tokens ago counts half, one token ago all: 4 − (1 + 0.5).
  EXPECT_EQ(choice({.frequency_penalty = 1, .penalty_decay = 0.5}, 4, 2.4F, 2), 0);
  EXPECT_EQ(choice({.frequency_penalty = 1, .penalty_decay = 0.5}, 4, 2.6F, 2), 1);
  // What the logits do not reach is ignored.
  Sampler sampler({.temperature = 0, .presence_penalty = 10});
  sampler.accept(5);
  EXPECT_EQ(sampler.next(std::vector<float>{1, 2}), 1);
}

TEST(Sampler, GoesOnFromItsState) {
  const std::vector<float> logits = random_logits(500, 1);
  const SamplingOptions options = {.top_p = 0.95, .frequency_penalty = 0.3, .penalty_decay = 0.99, .seed = 77};
  const auto step = [&](Sampler& sampler) {
    const std::int32_t token = sampler.next(logits);
    sampler.accept(token);
    return token;
  };
  Sampler whole(options);
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < 60; ++i) tokens.push_back(step(whole));
  EXPECT_GT(std::set(tokens.begin(), tokens.end()).size(), 10U);

  Sampler first(options);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(step(first), tokens[static_cast<std::size_t>(i)]);
  Sampler copy = first;
  Sampler restored(options);
  restored.restore(first.state());
  EXPECT_EQ(restored.state(), first.state());
  for (std::size_t i = 30; i < 60; ++i) {
    EXPECT_EQ(step(restored), tokens[i]);
    EXPECT_EQ(step(copy), tokens[i]);
  }
  EXPECT_EQ(restored.state(), whole.state());

  Sampler other({.top_p = 0.95, .frequency_penalty = 0.3, .penalty_decay = 0.99, .seed = 78});
  int same = 0;
  for (int i = 0; i < 60; ++i) same += step(other) == tokens[static_cast<std::size_t>(i)] ? 1 : 0;
  EXPECT_LT(same, 30);
}

TEST(Sampler, RefusesWhatMakesNoSense) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Sampler sampler;
  const auto next = [&](std::vector<float> logits) { return [&sampler, logits] { Sampler(sampler).next(logits); }; };
  EXPECT_TRUE(refuses(next({}), "[sampling] expected at least one logit"));
  EXPECT_TRUE(refuses(next({1, nan, 2}), "the logit of token 1: expected a finite number or -inf, got nan"));
  EXPECT_TRUE(refuses(next({nan}), "got nan"));
  EXPECT_TRUE(refuses(next({1, 2, kInfinity}), "the logit of token 2"));
  EXPECT_TRUE(refuses(next({-kInfinity, -kInfinity}), "all 2 logits are -inf"));
  EXPECT_THROW(sampler.next(std::vector<float>{nan}), NumericError);
  EXPECT_EQ(sampler.state().position, 0U);
  EXPECT_TRUE(refuses([&] { sampler.accept(-1); }, "a token seen: expected 0 or more, got -1"));

  const std::pair<SamplingOptions, const char*> kOptions[] = {
      {{.temperature = -1}, "temperature must be 0 or more and finite, got -1"},
      {{.temperature = nan}, "temperature must be"},
      {{.top_p = 1.5}, "top_p must be 0 … 1, got 1.5"},
      {{.top_p = nan}, "top_p must be"},
      {{.top_k = -1}, "top_k must be 0 or more, got -1"},
      {{.repetition_penalty = 0}, "repetition_penalty must be more than 0 and finite, got 0"},
      {{.presence_penalty = kInfinity}, "presence_penalty must be finite"},
      {{.frequency_penalty = nan}, "frequency_penalty must be finite"},
      {{.penalty_decay = 2}, "penalty_decay must be 0 … 1, got 2"},
  };
  for (const auto& [options, reason] : kOptions) {
    EXPECT_TRUE(refuses([&] { validate(options); }, reason));
    EXPECT_THROW(Sampler{options}, ConfigError);
  }
  EXPECT_TRUE(refuses(
      [&] {
        sampler.restore({.counts = {{5, 1}, {5, 1}}});
      },
      "expected ascending tokens, got 5 after 5"));
  EXPECT_TRUE(refuses([&] { sampler.restore({.counts = {{-1, 1}}}); }, "expected ascending tokens"));
  EXPECT_TRUE(refuses([&] { sampler.restore({.counts = {{1, nan}}}); }, "the count of token 1"));
}

}  // namespace
}  // namespace weft
