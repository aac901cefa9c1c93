#include "kernel/matvec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/half.h"
#include "kernel/testing/targets.h"

namespace weft {
namespace {

constexpr std::int64_t kColumns = ColumnBlocks::kColumns;

// A matrix of whole numbers, small enough for all sums to be exact in f32, laid out by the header's words.
class Packed {
 public:
  Packed(DType dtype, std::int64_t k, std::int64_t n)
      : dtype_(dtype),
        k_(k),
        n_(n),
        group_(dtype == DType::kF32    ? 1
               : dtype == DType::kBF16 ? 2
                                       : 4) {
    std::mt19937 random(1);
    const std::int64_t groups = (k + 15) / 16 * 16;  // padded with zeros, as oneDNN does
    block_bytes_ = static_cast<std::size_t>(groups * kColumns) * size_of(dtype);
    bytes_.resize(block_bytes_ * static_cast<std::size_t>((n + kColumns - 1) / kColumns) + kGuard);
    for (std::int64_t i = 0; i < k * n; ++i) weights_.push_back(static_cast<int>(random() % 31) - 15);
    for (std::int64_t i = 0; i < k; ++i) x_.push_back(static_cast<int>(random() % 200));
    for (std::int64_t row = 0; row < k; ++row) {
      for (std::int64_t c = 0; c < n; ++c) put(row, c);
    }
  }

  ColumnBlocks blocks() const {
    return {.dtype = dtype_, .k = k_, .n = n_, .block_bytes = block_bytes_, .data = bytes_.data()};
  }
  std::vector<std::byte> x() const {
    std::vector<std::byte> bytes;
    const auto add = [&](auto value) {
      const auto* const raw = reinterpret_cast<const std::byte*>(&value);
      bytes.insert(bytes.end(), raw, raw + sizeof value);
    };
    for (const int value : x_) {
      if (dtype_ == DType::kF32) add(static_cast<float>(value));
      if (dtype_ == DType::kBF16) add(to_bfloat16(static_cast<float>(value)));
      if (dtype_ == DType::kI8) add(static_cast<std::uint8_t>(value));
    }
    return bytes;
  }
  float sum(std::int64_t column) const {
    int total = 0;
    for (std::int64_t row = 0; row < k_; ++row) total += x_[index(row)] * weights_[index(row * n_ + column)];
    return static_cast<float>(total);
  }

 private:
  static constexpr std::size_t kGuard = 64;
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  void put(std::int64_t row, std::int64_t c) {
    const std::int64_t at = (row / group_ * kColumns + c % kColumns) * group_ + row % group_;
    std::byte* const block = bytes_.data() + block_bytes_ * index(c / kColumns);
    const int value = weights_[index(row * n_ + c)];
    if (dtype_ == DType::kF32) reinterpret_cast<float*>(block)[at] = static_cast<float>(value);
    if (dtype_ == DType::kBF16) reinterpret_cast<BFloat16*>(block)[at] = to_bfloat16(static_cast<float>(value));
    if (dtype_ == DType::kI8) reinterpret_cast<std::int8_t*>(block)[at] = static_cast<std::int8_t>(value);
  }

  DType dtype_;
  std::int64_t k_, n_, group_;
  std::size_t block_bytes_ = 0;
  std::vector<std::byte> bytes_;
  std::vector<int> weights_, x_;
};

TEST(MatVec, SumsEveryColumn) {
  testing::for_each_target([] {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
      for (const std::int64_t k : {1, 2, 3, 4, 5, 16, 67, 130}) {
        for (const std::int64_t n : {1, 64, 65, 200}) {
          SCOPED_TRACE(::testing::Message() << name_of(dtype) << ' ' << k << " × " << n);
          const Packed packed(dtype, k, n);
          const auto whole = static_cast<std::size_t>((n + kColumns - 1) / kColumns * kColumns);
          std::vector<float> sums(whole, NAN), prepared(matvec_row_bytes(k) / sizeof(float), NAN);
          auto* const row = reinterpret_cast<std::byte*>(prepared.data());
          prepare_row(packed.blocks(), packed.x().data(), row);
          multiply_row(packed.blocks(), row, 0, n, sums.data());
          for (std::int64_t c = 0; c < n; ++c) EXPECT_EQ(sums[static_cast<std::size_t>(c)], packed.sum(c)) << c;
          if (n <= kColumns) continue;
          multiply_row(packed.blocks(), row, kColumns, n, sums.data());
          EXPECT_EQ(sums[0], packed.sum(kColumns)) << "from the second block on";
        }
      }
    }
  });
}

}  // namespace
}  // namespace weft
