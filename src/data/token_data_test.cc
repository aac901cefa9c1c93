#include "data/token_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "io/npy.h"
#include "io/testing/files.h"

namespace weft {
namespace {

using testing::refuses;
using testing::TemporaryDirectory;
using testing::write_text;

// Whole numbers, i64.
Tensor whole(const std::vector<std::int64_t>& values, Shape shape) {
  Tensor tensor(DType::kI64, std::move(shape));
  std::ranges::copy(values, tensor.mutable_data<std::int64_t>().begin());
  return tensor;
}

std::vector<std::int64_t> all_of(const TokenData& data) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(data.size()));
  data.copy(0, tokens);
  return tokens;
}

std::vector<std::int64_t> values_of(const Tensor& tensor) {
  const auto values = tensor.data<std::int64_t>();
  return {values.begin(), values.end()};
}

TEST(TokenData, OpensTextArraysAndRawNumbers) {
  const TemporaryDirectory folder;
  const Tokenizer bytes = Tokenizer::bytes();
  write_text(folder / "a.txt", std::string("a\0\xff", 3));
  const TokenData text = TokenData::open(folder / "a.txt", bytes);
  EXPECT_EQ(all_of(text), (std::vector<std::int64_t>{97, 0, 255}));
  EXPECT_EQ(text.largest(), 255);

  // RWKV World: the longest token first.
  write_text(folder / "vocabulary", "1 'a' 1\n2 'b' 1\n3 'ab' 2\n");
  write_text(folder / "b.txt", "abba");
  EXPECT_EQ(all_of(TokenData::open(folder / "b.txt", Tokenizer::load(folder / "vocabulary"))),
            (std::vector<std::int64_t>{3, 2, 1}));

  write_text(folder / "a.bin", std::string("\x01\x00\xff\xff\x00\x01", 6));
  EXPECT_EQ(all_of(TokenData::open(folder / "a.bin", std::nullopt)), (std::vector<std::int64_t>{1, 65535, 256}));

  write_npy(folder / "wide", whole({7, 70000, 3}, {3}));
  write_npy(folder / "narrow", whole({7, 70000, 3}, {3}).to(DType::kI32));
  const TokenData wide = TokenData::open(folder / "wide", bytes);  // tokens, whatever else is text
  const TokenData narrow = TokenData::open(folder / "narrow", std::nullopt);
  EXPECT_EQ(all_of(wide), (std::vector<std::int64_t>{7, 70000, 3}));
  EXPECT_EQ(all_of(narrow), all_of(wide));
  EXPECT_EQ(narrow.fingerprint(), wide.fingerprint());
  EXPECT_NE(narrow.fingerprint(), text.fingerprint());
}

TEST(TokenData, RefusesWhatIsNoText) {
  const TemporaryDirectory folder;
  const auto open = [&](const char* name) {
    return [&, name] { (void)TokenData::open(folder / name, Tokenizer::bytes()); };
  };
  EXPECT_TRUE(refuses(open("missing"), "missing"));
  EXPECT_TRUE(refuses(open("."), "is a folder"));
  write_text(folder / "short", "a");
  EXPECT_TRUE(refuses(open("short"), "at least two tokens, got 1"));
  write_text(folder / "odd.bin", "abc");
  EXPECT_TRUE(refuses(open("odd.bin"), "expected 16-bit tokens in a file named .bin, got 3 bytes"));
  write_npy(folder / "floats", Tensor::of(std::vector<float>{1, 2}, {2}));
  EXPECT_TRUE(refuses(open("floats"), "whole numbers along one axis, got f32 [2]"));
  write_npy(folder / "table", whole({1, 2}, {1, 2}));
  EXPECT_TRUE(refuses(open("table"), "whole numbers along one axis, got i64 [1,2]"));
  write_npy(folder / "negative", whole({1, -2}, {2}));
  EXPECT_TRUE(refuses(open("negative"), "token 1 is -2"));
  write_text(folder / "a.txt", "text");
  EXPECT_TRUE(refuses([&] { (void)TokenData::open(folder / "a.txt", std::nullopt); }, "needs a tokenizer"));
}

class Windows : public ::testing::Test {
 protected:
  TokenData opened(const std::vector<std::int64_t>& tokens) const {
    write_npy(folder_ / "tokens", whole(tokens, {static_cast<std::int64_t>(tokens.size())}));
    return TokenData::open(folder_ / "tokens", std::nullopt);
  }
  static std::vector<std::int64_t> counting(std::int64_t count) {
    std::vector<std::int64_t> tokens;
    for (std::int64_t i = 0; i < count; ++i) tokens.push_back(i);
    return tokens;
  }
  TemporaryDirectory folder_;
};

TEST_F(Windows, BeginAnywhereAndTargetsFollow) {
  const TokenData data = opened(counting(12));
  std::set<std::int64_t> begins;
  for (std::int64_t pass = 0; pass < 50; ++pass) {
    const TokenWindows windows = draw_windows(data, 4, 3, 1, pass, 0);
    EXPECT_EQ(windows.tokens.shape(), Shape({3, 4}));
    const auto tokens = values_of(windows.tokens);
    const auto targets = values_of(windows.targets);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      EXPECT_EQ(tokens[i], tokens[i / 4 * 4] + static_cast<std::int64_t>(i % 4));
      EXPECT_EQ(targets[i], tokens[i] + 1);
    }
    for (std::size_t b = 0; b < 3; ++b) begins.insert(tokens[4 * b]);
  }
  // Each of eight places; 150 draws miss one of them with a probability of 8 · (7/8)^150 = 2e-8.
  EXPECT_EQ(begins, (std::set<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(values_of(draw_windows(opened(counting(5)), 4, 1, 1, 0, 0).targets),
            (std::vector<std::int64_t>{1, 2, 3, 4}));
  EXPECT_TRUE(
      refuses([&] { (void)draw_windows(data, 12, 1, 1, 0, 0); }, "has 12 tokens, which do not fill one window"));
}

TEST_F(Windows, DependOnSeedPassAndNumberAlone) {
  const TokenData data = opened(counting(1000));
  const auto drawn = [&](std::uint64_t seed, std::int64_t pass, std::int64_t first, std::int64_t batch) {
    return values_of(draw_windows(data, 5, batch, seed, pass, first).tokens);
  };
  const auto whole = drawn(3, 7, 0, 6);
  std::vector<std::int64_t> parts;
  for (const std::int64_t first : {0, 2, 4}) {  // three processes
    const auto part = drawn(3, 7, first, 2);
    parts.insert(parts.end(), part.begin(), part.end());
  }
  EXPECT_EQ(parts, whole);
  EXPECT_NE(drawn(3, 8, 0, 6), whole);
  EXPECT_NE(drawn(4, 7, 0, 6), whole);
}

TEST_F(Windows, OfAnEvaluationAskForEachTokenOnce) {
  const TokenData data = opened(counting(12));
  EXPECT_EQ(window_count(data, 4), 2);
  EXPECT_EQ(values_of(window_at(data, 4, 0).targets), (std::vector<std::int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(values_of(window_at(data, 4, 1).tokens), (std::vector<std::int64_t>{4, 5, 6, 7}));
  EXPECT_EQ(window_count(opened(counting(13)), 4), 3);
}

}  // namespace
}  // namespace weft
