// Random numbers that depend on a key alone: the same on every machine, for any number of threads, from any start.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace weft {

/// SplitMix64 (Steele, Lea, Flood 2014) from a state that is a hash of the key. Streams of different keys have nothing
/// to do with each other, so that who draws first does not matter. Distributions are written out here because those of
/// the standard library differ between implementations.
class Random {
 public:
  Random(std::initializer_list<std::uint64_t> key);

  std::uint64_t bits();
  /// [0, 1), of 53 bits.
  double uniform();
  /// [low, high); `low` where both are equal.
  double uniform(double low, double high);
  /// 0 … n − 1, each equally often. n ≥ 1.
  std::int64_t below(std::int64_t n);
  /// True with this probability; 0 and less never, 1 and more always. Takes one number in any case.
  bool chance(double probability);
  /// Of mean 0 and standard deviation 1 (Box and Muller 1958).
  double normal();
  /// Of this shape > 0 and scale 1 (Marsaglia and Tsang 2000).
  double gamma(double shape);
  /// Within [0, 1], of shapes a, b > 0.
  double beta(double a, double b);

 private:
  std::uint64_t state_ = 0;
};

}  // namespace weft
