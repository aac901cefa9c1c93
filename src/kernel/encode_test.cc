#include "kernel/encode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernel/testing/targets.h"

namespace weft {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// One below, at and above the vectors of all targets, and the widths of real models.
constexpr std::int64_t kWidths[] = {1, 7, 15, 16, 17, 31, 33, 192, 768};

std::vector<float> normal(std::int64_t count, unsigned seed, float scale = 1, float shift = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(shift, scale);
  std::vector<float> values(static_cast<std::size_t>(count));
  std::ranges::generate(values, [&] { return distribution(random); });
  return values;
}

// Storage with elements behind it that nobody may write.
template <class T>
class Fenced {
 public:
  explicit Fenced(std::int64_t size) : size_(static_cast<std::size_t>(size)) {
    values_.resize(size_ + kFence);
    std::fill(bytes(), bytes() + values_.size() * sizeof(T), kByte);
  }
  ~Fenced() {
    unsigned char* const end = bytes() + values_.size() * sizeof(T);
    EXPECT_TRUE(std::all_of(bytes() + size_ * sizeof(T), end, [](unsigned char b) { return b == kByte; }))
        << "written behind the end";
  }
  Fenced(const Fenced&) = delete;
  Fenced& operator=(const Fenced&) = delete;
  T* data() { return values_.data(); }
  const T& operator[](std::size_t i) const { return values_[i]; }

 private:
  static constexpr std::size_t kFence = 64;
  static constexpr unsigned char kByte = 0xA5;
  unsigned char* bytes() { return reinterpret_cast<unsigned char*>(values_.data()); }
  std::size_t size_;
  std::vector<T> values_;
};

void encode(DType encoding, const std::vector<float>& x, std::int64_t k, void* y, RowScale* scales) {
  const auto rows = static_cast<std::int64_t>(x.size()) / k;
  const auto encoder = make_encoder(encoding, rows, k);
  const auto* const in = reinterpret_cast<const std::byte*>(x.data());
  std::byte* const out[] = {static_cast<std::byte*>(y), reinterpret_cast<std::byte*>(scales)};
  encoder->run_rows({.in = {&in, 1}, .out = out, .scratch = nullptr, .begin = 0, .end = rows});
}

// The definition of rounding to nearest even, in double: of the two neighbours the nearer one, of equally near ones
// that whose last bit is 0.
std::uint16_t nearest_bf16(float x) {
  if (std::isinf(x)) return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);
  const auto low = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);  // towards zero
  const auto high = static_cast<std::uint16_t>(low + 1);
  const auto value = [](std::uint16_t bits) {
    const float f = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    return std::isinf(f) ? std::copysign(0x1p128, f) : static_cast<double>(f);  // what overflows counts as 2^128
  };
  const double below = std::abs(value(low) - static_cast<double>(x));
  const double above = std::abs(value(high) - static_cast<double>(x));
  if (below != above) return below < above ? low : high;
  return low % 2 == 0 ? low : high;
}

TEST(Encode, RoundsBF16ToNearestEven) {
  std::vector<float> x = {0,
                          -0.0F,
                          1,
                          -1,
                          kInfinity,
                          -kInfinity,
                          std::numeric_limits<float>::max(),
                          std::numeric_limits<float>::lowest(),
                          std::numeric_limits<float>::min(),
                          std::numeric_limits<float>::denorm_min()};
  std::mt19937 random(1);
  for (int i = 0; i < 20000;
       ++i) {  // any bits, with ties and their neighbours: half of the dropped part and one beside
    const std::uint32_t bits = static_cast<std::uint32_t>(random());
    for (const std::uint32_t low : {bits & 0xFFFFU, 0x7FFFU, 0x8000U, 0x8001U, 0U}) {
      const float value = std::bit_cast<float>((bits & 0xFFFF0000U) | low);
      if (!std::isnan(value)) x.push_back(value);
    }
  }
  for (std::uint32_t high = 0; high < 0x80U; ++high) {  // subnormals
    for (const std::uint32_t low : {1U, 0x7FFFU, 0x8000U, 0x8001U}) {
      x.push_back(std::bit_cast<float>((high << 16) | low));
      x.push_back(-x.back());
    }
  }
  testing::for_each_target([&] {
    Fenced<std::uint16_t> y(static_cast<std::int64_t>(x.size()));
    encode(DType::kBF16, x, 1, y.data(), nullptr);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i], nearest_bf16(x[i])) << x[i];
  });
}

TEST(Encode, BF16KeepsNaNs) {
  // The payloads that adding 0x7FFF would carry into an infinity or a zero, among ordinary values.
  testing::for_each_target([&] {
    for (const std::int64_t k : kWidths) {
      for (const std::uint32_t bits : {0x7F800001U, 0x7FC00000U, 0x7FFFFFFFU, 0xFF800001U, 0xFFFFFFFFU}) {
        for (const std::int64_t place : {std::int64_t{0}, k / 2, k - 1}) {
          std::vector<float> x = normal(k, 2);
          x[static_cast<std::size_t>(place)] = std::bit_cast<float>(bits);
          Fenced<std::uint16_t> y(k);
          encode(DType::kBF16, x, k, y.data(), nullptr);
          for (std::int64_t i = 0; i < k; ++i) {
            const std::uint16_t got = y[static_cast<std::size_t>(i)];
            ASSERT_EQ((got & 0x7FFFU) > 0x7F80U, i == place) << k << " " << i;
          }
        }
      }
    }
  });
}

// Half a step, and what f32 loses on the way: the difference from low and the product by 255/range each round once (a
// unit of at most 255, half an ulp each), the scale once more when it comes back.
double int8_bound(const float* x, std::int64_t k) {
  const auto [least, largest] = std::minmax_element(x, x + k);
  const double range = static_cast<double>(*largest) - *least;
  const double magnitude = std::max(std::abs(*least), std::abs(*largest));
  return range / 255 / 2 + 4 * 0x1p-24 * range + 0x1p-23 * magnitude;
}

TEST(Encode, Int8IsWithinHalfAStep) {
  testing::for_each_target([&] {
    for (const std::int64_t k : kWidths) {
      for (const auto& [scale, shift] :
           {std::pair{1.0F, 0.0F}, {1e-3F, 5.0F}, {1e20F, 0.0F}, {1e-20F, 0.0F}, {3, -40}}) {
        constexpr std::int64_t kRows = 5;
        const std::vector<float> x = normal(kRows * k, 3, scale, shift);
        Fenced<std::uint8_t> y(kRows * k);
        Fenced<RowScale> scales(kRows);
        encode(DType::kI8, x, k, y.data(), scales.data());
        for (std::int64_t row = 0; row < kRows; ++row) {
          const float* const of = x.data() + row * k;
          const RowScale s = scales[static_cast<std::size_t>(row)];
          EXPECT_EQ(s.low, *std::min_element(of, of + k));
          int largest = 0;
          for (std::int64_t i = 0; i < k; ++i) {
            const int q = y[static_cast<std::size_t>(row * k + i)];
            largest = std::max(largest, q);
            const double got = static_cast<double>(s.low) + static_cast<double>(s.scale) * q;
            ASSERT_LE(std::abs(got - of[i]), int8_bound(of, k)) << k << " " << scale << " " << shift;
          }
          if (k > 1) {
            EXPECT_EQ(largest, 255) << "the range is not used";
          }
        }
      }
    }
  });
}

TEST(Encode, Int8KeepsZerosBehindAReluAndConstantRows) {
  testing::for_each_target([&] {
    for (const std::int64_t k : kWidths) {
      std::vector<float> x = normal(3 * k, 4);
      for (float& value : x) value = std::max(value, 0.0F);
      x[0] = 0;
      std::fill(x.begin() + k, x.begin() + 2 * k, 0.0F);
      std::fill(x.begin() + 2 * k, x.end(), -1.7F);
      Fenced<std::uint8_t> y(3 * k);
      Fenced<RowScale> scales(3);
      encode(DType::kI8, x, k, y.data(), scales.data());
      for (std::int64_t i = 0; i < 3 * k; ++i) {
        const RowScale s = scales[static_cast<std::size_t>(i / k)];
        const float want = x[static_cast<std::size_t>(i)];
        const float got = s.low + s.scale * y[static_cast<std::size_t>(i)];
        if (i >= k || want == 0) {
          ASSERT_EQ(got, want) << k << " " << i;
        }
      }
    }
  });
}

TEST(Encode, Int8ValuesThatAreNotFinitePoisonTheirRowOnly) {
  testing::for_each_target([&] {
    for (const std::int64_t k : kWidths) {
      for (const float bad : {kNaN, kInfinity, -kInfinity}) {
        for (const std::int64_t place : {std::int64_t{0}, k / 2, k - 1}) {
          std::vector<float> x = normal(3 * k, 5);
          x[static_cast<std::size_t>(k + place)] = bad;
          Fenced<std::uint8_t> y(3 * k);
          Fenced<RowScale> scales(3);
          encode(DType::kI8, x, k, y.data(), scales.data());
          EXPECT_TRUE(std::isfinite(scales[0].scale) && std::isfinite(scales[0].low));
          EXPECT_TRUE(std::isnan(scales[1].scale)) << bad << " at " << place << " of " << k;
          EXPECT_TRUE(std::isfinite(scales[2].scale) && std::isfinite(scales[2].low));
        }
      }
    }
  });
}

TEST(Encode, Int8RangesAtTheEndsOfF32AreNeverSilentlyWrong) {
  // Where 255/range or the range itself leaves f32: within half a step, which is 2^-126 at least, or a NaN.
  const float most = std::numeric_limits<float>::max();
  testing::for_each_target([&] {
    for (const auto& [low, high] : {std::pair{-most, most},
                                    {0.0F, most},
                                    {0.0F, 1e-37F},
                                    {0.0F, 1e-40F},
                                    {0.0F, std::numeric_limits<float>::denorm_min()}}) {
      std::vector<float> x(17, low);
      x[3] = high;
      Fenced<std::uint8_t> y(17);
      Fenced<RowScale> scales(1);
      encode(DType::kI8, x, 17, y.data(), scales.data());
      const double got = static_cast<double>(scales[0].low) + static_cast<double>(scales[0].scale) * y[3];
      const double bound = std::max(int8_bound(x.data(), 17), 0x1p-127);
      EXPECT_TRUE(std::isnan(got) || std::isinf(got) || std::abs(got - high) <= bound)
          << low << " … " << high << ": " << got;
    }
  });
}

EncodedRows f32_rows(float* y) { return {.rows = reinterpret_cast<std::byte*>(y)}; }
EncodedRows bf16_rows(std::uint16_t* y) { return {.encoding = DType::kBF16, .rows = reinterpret_cast<std::byte*>(y)}; }
EncodedRows i8_rows(std::uint8_t* y, RowScale* scales, float* scratch) {
  return {.encoding = DType::kI8, .rows = reinterpret_cast<std::byte*>(y), .scales = scales, .scratch = scratch};
}

struct Columns {
  std::vector<float> raw, sums, bias;
  std::vector<RowScale> scales;
};

Columns columns(std::int64_t rows, std::int64_t n) {
  Columns c{normal(rows * n, 6, 300), normal(n, 7), normal(n, 8), {}};
  for (const float value : normal(rows, 9)) c.scales.push_back({0.01F * std::abs(value), value});
  return c;
}

double decoded(const Columns& c, const Decoding& d, std::int64_t row, std::int64_t i) {
  const RowScale s = c.scales[static_cast<std::size_t>(row)];
  const auto column = static_cast<std::size_t>(i);
  const double y = static_cast<double>(s.scale) * c.raw[static_cast<std::size_t>(row * d.n + i)] +
                   static_cast<double>(s.low) * c.sums[column] + (d.bias ? static_cast<double>(c.bias[column]) : 0.0);
  return d.activation == Activation::kNone ? y : y > 0 ? y * y : 0;
}

// A few roundings of terms of this size; squared, of what the square makes of them.
double decoding_bound(const Columns& c, const Decoding& d, std::int64_t row, std::int64_t i) {
  const RowScale s = c.scales[static_cast<std::size_t>(row)];
  const auto column = static_cast<std::size_t>(i);
  const double terms = std::abs(static_cast<double>(s.scale) * c.raw[static_cast<std::size_t>(row * d.n + i)]) +
                       std::abs(static_cast<double>(s.low) * c.sums[column]) + std::abs(c.bias[column]);
  return 4 * 0x1p-24 * (d.activation == Activation::kNone ? terms : 2 * terms * terms);
}

TEST(Encode, DecodesAsTheScalarFormula) {
  constexpr std::int64_t kRows = 3;
  testing::for_each_target([&] {
    for (const std::int64_t n : kWidths) {
      const Columns c = columns(kRows, n);
      for (const bool with_bias : {false, true}) {
        for (const Activation activation : {Activation::kNone, Activation::kSquaredRelu}) {
          const Decoding d{
              .n = n, .sums = c.sums.data(), .bias = with_bias ? c.bias.data() : nullptr, .activation = activation};
          Fenced<float> y(kRows * n);
          decode_rows(d, c.scales.data(), c.raw.data(), f32_rows(y.data()), kRows);
          std::vector<float> in_place = c.raw;
          decode_rows(d, c.scales.data(), in_place.data(), f32_rows(in_place.data()), kRows);
          Fenced<std::uint16_t> rounded(kRows * n);
          decode_rows(d, c.scales.data(), c.raw.data(), bf16_rows(rounded.data()), kRows);
          for (std::int64_t i = 0; i < kRows * n; ++i) {
            const float got = y[static_cast<std::size_t>(i)];
            ASSERT_NEAR(got, decoded(c, d, i / n, i % n), decoding_bound(c, d, i / n, i % n)) << n;
            ASSERT_EQ(got, in_place[static_cast<std::size_t>(i)]);
            ASSERT_EQ(rounded[static_cast<std::size_t>(i)], nearest_bf16(got));
          }
        }
      }
    }
  });
}

TEST(Encode, DecodesToInt8AsDecodingAndEncodingWould) {
  constexpr std::int64_t kRows = 3;
  testing::for_each_target([&] {
    for (const std::int64_t n : kWidths) {
      const Columns c = columns(kRows, n);
      for (const Activation activation : {Activation::kNone, Activation::kSquaredRelu}) {
        const Decoding d{.n = n, .sums = c.sums.data(), .bias = c.bias.data(), .activation = activation};
        Fenced<std::uint8_t> y(kRows * n);
        Fenced<RowScale> y_scales(kRows);
        Fenced<float> scratch(n);
        decode_rows(d, c.scales.data(), c.raw.data(), i8_rows(y.data(), y_scales.data(), scratch.data()), kRows);
        std::vector<float> plain(static_cast<std::size_t>(kRows * n));
        decode_rows(d, c.scales.data(), c.raw.data(), f32_rows(plain.data()), kRows);
        for (std::int64_t i = 0; i < kRows * n; ++i) {
          const std::int64_t row = i / n;
          const RowScale s = y_scales[static_cast<std::size_t>(row)];
          const double got = static_cast<double>(s.low) + static_cast<double>(s.scale) * y[static_cast<std::size_t>(i)];
          ASSERT_NEAR(got, decoded(c, d, row, i % n),
                      int8_bound(plain.data() + row * n, n) + decoding_bound(c, d, row, i % n))
              << n;
        }
      }
    }
  });
}

TEST(Encode, DecodingPassesANaNOn) {
  testing::for_each_target([&] {
    for (const std::int64_t n : kWidths) {
      Columns c = columns(2, n);
      c.scales[1].scale = kNaN;
      for (const Activation activation : {Activation::kNone, Activation::kSquaredRelu}) {
        const Decoding d{.n = n, .sums = c.sums.data(), .bias = nullptr, .activation = activation};
        Fenced<float> y(2 * n);
        decode_rows(d, c.scales.data(), c.raw.data(), f32_rows(y.data()), 2);
        Fenced<std::uint8_t> q(2 * n);
        Fenced<RowScale> scales(2);
        Fenced<float> scratch(n);
        decode_rows(d, c.scales.data(), c.raw.data(), i8_rows(q.data(), scales.data(), scratch.data()), 2);
        for (std::int64_t i = 0; i < 2 * n; ++i) ASSERT_EQ(std::isnan(y[static_cast<std::size_t>(i)]), i >= n);
        EXPECT_TRUE(std::isfinite(scales[0].scale));
        EXPECT_TRUE(std::isnan(scales[1].scale));
      }
    }
  });
}

}  // namespace
}  // namespace weft
