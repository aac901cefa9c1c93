#include "core/random.h"

#include <bit>
#include <cmath>
#include <numbers>

namespace weft {
namespace {

constexpr std::uint64_t kStep = 0x9E3779B97F4A7C15;  // 2^64 / golden ratio

constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

Random::Random(std::initializer_list<std::uint64_t> key) {
  for (const std::uint64_t part : key) state_ = mix(state_ + kStep + part);
}

std::uint64_t Random::bits() { return mix(state_ += kStep); }

double Random::uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

double Random::uniform(double low, double high) { return low + (high - low) * uniform(); }

std::int64_t Random::below(std::int64_t n) {
  const auto last = static_cast<std::uint64_t>(n - 1);
  const int unused = std::countl_zero(last | 1);
  while (true) {
    const std::uint64_t drawn = bits() >> unused;
    if (drawn <= last) return static_cast<std::int64_t>(drawn);
  }
}

bool Random::chance(double probability) { return uniform() < probability; }

double Random::normal() {
  const double radius = std::sqrt(-2 * std::log(1 - uniform()));  // 1 − u is never 0
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

double Random::gamma(double shape) {
  if (shape < 1) {  // Γ(a) = Γ(a + 1) · U^(1/a)
    const double larger = gamma(shape + 1);
    return larger * std::pow(1 - uniform(), 1 / shape);
  }
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = normal();
    const double root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (std::log(1 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

double Random::beta(double a, double b) {
  const double x = gamma(a);
  const double y = gamma(b);
  // Both vanish for tiny shapes only, where the distribution sits at its ends.
  if (x + y == 0) return chance(a / (a + b)) ? 1 : 0;
  return x / (x + y);
}

}  // namespace weft
