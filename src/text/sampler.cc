#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "core/format.h"
#include "core/options.h"
#include "core/random.h"
#include "weft/text.h"

namespace weft {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

using Candidate = std::pair<float, std::int32_t>;  // score and token
using Candidates = std::vector<Candidate>;

// Whether a comes before b, the likeliest first.
constexpr auto kLikelier = [](const Candidate& a, const Candidate& b) {
  return a.first > b.first || (a.first == b.first && a.second < b.second);
};

// In strides, since a single maximum would wait for itself at every step.
float largest_of(std::span<const float> values) {
  std::array<float, 16> largest;
  largest.fill(kNever);
  std::size_t i = 0;
  for (; i + largest.size() <= values.size(); i += largest.size()) {
    for (std::size_t k = 0; k < largest.size(); ++k) largest[k] = std::max(largest[k], values[i + k]);
  }
  for (; i < values.size(); ++i) largest[0] = std::max(largest[0], values[i]);
  return *std::ranges::max_element(largest);
}

void check_logits(std::span<const float> logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  require<ShapeError>(!logits.empty(), "sampling", "expected at least one logit, got none");
  int bad = 0;
  for (const float logit : logits) bad |= static_cast<int>(!(logit < kInfinity));  // so is NaN
  if (bad != 0) {
    const auto first = std::ranges::find_if(logits, [](float logit) { return !(logit < kInfinity); });
    fail<NumericError>("sampling", "the logit of token {}: expected a finite number or -inf, got {}",
                       first - logits.begin(), *first);
  }
  require<NumericError>(largest_of(logits) != kNever, "sampling",
                        "all {} logits are -inf: expected one that can be drawn", logits.size());
}

void penalise(std::span<float> scores, const SamplingOptions& options, std::span<const TokenCount> counts) {
  if (options.repetition_penalty == 1 && options.presence_penalty == 0 && options.frequency_penalty == 0) return;
  constexpr double kLargest = std::numeric_limits<float>::max();
  for (const auto& [token, count] : counts) {
    if (std::cmp_greater_equal(token, scores.size())) break;
    float& score = scores[static_cast<std::size_t>(token)];
    if (score == kNever) continue;
    const double scaled = score > 0 ? score / options.repetition_penalty : score * options.repetition_penalty;
    const double penalised = scaled - options.presence_penalty - count * options.frequency_penalty;
    score = static_cast<float>(std::clamp(penalised, -kLargest, kLargest));
  }
}

// e^((score − max)/temperature)
void weigh(std::span<const float> scores, double temperature, std::span<float> weights) {
  const float largest = largest_of(scores);
  const double factor = 1 / temperature;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    // The difference of equals is 0, whatever the temperature.
    const double below = static_cast<double>(scores[i]) - largest;
    weights[i] = below == 0 ? 1 : std::exp(static_cast<float>(below * factor));
  }
}

// Takes away the weight of all that come after `last`.
void keep_until(const Candidate& last, std::span<const float> scores, std::span<float> weights) {
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const bool kept = scores[i] > last.first || (scores[i] == last.first && std::cmp_less_equal(i, last.second));
    weights[i] = kept ? weights[i] : 0;
  }
}

// Keeps the likeliest tokens that together count `wanted` and no more than needed: count(i) ≥ 0 is what token i counts.
// Linear: scores are put into buckets to find the one that the last token is in, which is halved until it is found.
template <class Count>
void keep_likeliest(double wanted, const Count& count, std::span<const float> scores, std::span<float> weights,
                    Candidates& candidates) {
  constexpr std::size_t kBuckets = 2048;
  const float largest = largest_of(scores);
  float smallest = largest;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    smallest = std::min(smallest, weights[i] > 0 ? scores[i] : largest);
  }
  // Rounding is monotone, so that buckets are in the order of the scores.
  const double scale = largest > smallest ? (kBuckets - 1) / (static_cast<double>(largest) - smallest) : 0;
  const auto bucket_of = [&](std::size_t i) {
    return static_cast<std::size_t>((static_cast<double>(largest) - scores[i]) * scale);
  };
  std::array<double, kBuckets> counts{};
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (weights[i] > 0) counts[bucket_of(i)] += count(i);
  }
  std::size_t bucket = 0;
  while (bucket + 1 < kBuckets && counts[bucket] < wanted) wanted -= counts[bucket++];

  candidates.clear();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (weights[i] > 0 && bucket_of(i) == bucket) candidates.emplace_back(scores[i], static_cast<std::int32_t>(i));
  }
  auto begin = candidates.begin();
  auto end = candidates.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::ranges::nth_element(begin, middle, end, kLikelier);
    const double before = std::accumulate(begin, middle, 0.0, [&](double so_far, const Candidate& c) {
      return so_far + count(static_cast<std::size_t>(c.second));
    });
    if (before >= wanted) {
      end = middle;
    } else {
      wanted -= before;
      begin = middle;
    }
  }
  if (begin != end) keep_until(*begin, scores, weights);
}

double sum(std::span<const float> weights) { return std::accumulate(weights.begin(), weights.end(), 0.0); }

// The token at this place in the weights laid side by side.
std::int32_t draw(std::span<const float> weights, double uniform) {
  const double place = uniform * sum(weights);
  double passed = 0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    last = i;
    passed += weights[i];
    if (passed > place) break;
  }
  return static_cast<std::int32_t>(last);
}

}  // namespace

void validate(const SamplingOptions& options) {
  RangeCheck check;
  const auto positive = [&](double value, std::string_view name, bool zero) {
    check.expect(std::isfinite(value) && (value > 0 || (zero && value == 0)), name,
                 fmt::format("{} and finite, got {}", zero ? "0 or more" : "more than 0", value));
  };
  const auto share = [&](double value, std::string_view name) {
    check.expect(value >= 0 && value <= 1, name, fmt::format("0 … 1, got {}", value));
  };
  const auto finite = [&](double value, std::string_view name) {
    check.expect(std::isfinite(value), name, fmt::format("finite, got {}", value));
  };
  positive(options.temperature, "temperature", true);
  share(options.top_p, "top_p");
  check.expect(options.top_k >= 0, "top_k", fmt::format("0 or more, got {}", options.top_k));
  positive(options.repetition_penalty, "repetition_penalty", false);
  finite(options.presence_penalty, "presence_penalty");
  finite(options.frequency_penalty, "frequency_penalty");
  share(options.penalty_decay, "penalty_decay");
  check.done("sampling");
}

Sampler::Sampler(const SamplingOptions& options) : options_(options) { validate(options); }

void Sampler::accept(std::int32_t token) {
  require<ConfigError>(token >= 0, "sampling", "a token seen: expected 0 or more, got {}", token);
  auto& counts = state_.counts;
  if (options_.penalty_decay != 1) {
    for (TokenCount& seen : counts) seen.count *= options_.penalty_decay;
  }
  const auto at = std::ranges::lower_bound(counts, token, {}, &TokenCount::token);
  if (at != counts.end() && at->token == token) {
    ++at->count;
  } else {
    counts.insert(at, {.token = token, .count = 1});
  }
}

void Sampler::restore(SamplerState state) {
  std::int32_t last = -1;
  for (const TokenCount& seen : state.counts) {
    require<ConfigError>(seen.token > last, "sampling",
                         "the counts of a state: expected ascending tokens, got {} after {}", seen.token, last);
    require<ConfigError>(std::isfinite(seen.count) && seen.count >= 0, "sampling",
                         "the count of token {}: expected 0 or more and finite, got {}", seen.token, seen.count);
    last = seen.token;
  }
  state_ = std::move(state);
}

std::int32_t Sampler::next(std::span<const float> logits) {
  check_logits(logits);
  scores_.assign(logits.begin(), logits.end());
  penalise(scores_, options_, state_.counts);
  const std::uint64_t position = state_.position++;
  if (options_.temperature == 0) return static_cast<std::int32_t>(std::ranges::max_element(scores_) - scores_.begin());
  weights_.resize(scores_.size());
  weigh(scores_, options_.temperature, weights_);
  if (options_.top_k > 0) {
    keep_likeliest(
        options_.top_k, [](std::size_t) { return 1.0; }, scores_, weights_, candidates_);
  }
  if (options_.top_p < 1) {
    const double wanted = options_.top_p * sum(weights_);
    keep_likeliest(
        wanted, [&](std::size_t i) { return static_cast<double>(weights_[i]); }, scores_, weights_, candidates_);
  }
  return draw(weights_, Random({options_.seed, position}).uniform());
}

}  // namespace weft
