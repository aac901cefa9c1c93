#include <algorithm>
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
bool likelier(const Candidate& a, const Candidate& b) {
  return a.first > b.first || (a.first == b.first && a.second < b.second);
}

void check_logits(std::span<const float> logits) {
  require<ShapeError>(!logits.empty(), "sampling", "expected at least one logit, got none");
  bool good = true;
  float largest = kNever;
  for (const float logit : logits) {
    good = good && logit < std::numeric_limits<float>::infinity();  // false for NaN, too
    largest = std::max(largest, logit);
  }
  if (!good) {
    const auto bad =
        std::ranges::find_if(logits, [](float logit) { return !(logit < std::numeric_limits<float>::infinity()); });
    fail<NumericError>("sampling", "the logit of token {}: expected a finite number or -inf, got {}",
                       bad - logits.begin(), *bad);
  }
  require<NumericError>(largest != kNever, "sampling", "all {} logits are -inf: expected one that can be drawn",
                        logits.size());
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
  const float largest = std::ranges::max(scores);
  const double factor = 1 / temperature;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    // The difference of equals is 0, whatever the temperature.
    const double below = static_cast<double>(scores[i]) - largest;
    weights[i] = below == 0 ? 1 : std::exp(static_cast<float>(below * factor));
  }
}

// Those that weigh at least so much, by ascending token.
void gather(std::span<const float> scores, std::span<const float> weights, double least, Candidates& out) {
  out.clear();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (weights[i] > 0 && weights[i] >= least) out.emplace_back(scores[i], static_cast<std::int32_t>(i));
  }
}

// Takes away the weight of all that come after `last`.
void keep_until(const Candidate& last, std::span<const float> scores, std::span<float> weights) {
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (likelier(last, {scores[i], static_cast<std::int32_t>(i)})) weights[i] = 0;
  }
}

double sum(std::span<const float> weights) { return std::accumulate(weights.begin(), weights.end(), 0.0); }

void keep_top_k(std::size_t k, std::span<const float> scores, std::span<float> weights, Candidates& candidates) {
  gather(scores, weights, 0, candidates);
  if (k >= candidates.size()) return;
  const auto last = candidates.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::ranges::nth_element(candidates, last, likelier);
  keep_until(*last, scores, weights);
}

void keep_top_p(double p, std::span<const float> scores, std::span<float> weights, Candidates& candidates) {
  const double total = sum(weights);
  // All that weigh less than this have less than 1 − p together: they are none of those looked for.
  gather(scores, weights, (1 - p) * total / static_cast<double>(scores.size()), candidates);
  // Halves the range in which the last one lies, as nth_element does; what is before it weighs less than p.
  double missing = p * total;
  auto begin = candidates.begin();
  auto end = candidates.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::ranges::nth_element(begin, middle, end, likelier);
    const double before = std::accumulate(begin, middle, 0.0, [&](double so_far, const Candidate& c) {
      return so_far + weights[static_cast<std::size_t>(c.second)];
    });
    if (before >= missing) {
      end = middle;
    } else {
      missing -= before;
      begin = middle;
    }
  }
  if (begin != candidates.end()) keep_until(*begin, scores, weights);
}

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
  if (options_.top_k > 0) keep_top_k(static_cast<std::size_t>(options_.top_k), scores_, weights_, candidates_);
  if (options_.top_p < 1) keep_top_p(options_.top_p, scores_, weights_, candidates_);
  return draw(weights_, Random({options_.seed, position}).uniform());
}

}  // namespace weft
