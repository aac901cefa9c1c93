#include "text/unicode.h"

#include <gtest/gtest.h>

#include "core/format.h"
#include "text/pre_tokenizer.h"
#include "text/testing/vocabularies.h"

namespace weft::text {
namespace {

TEST(Unicode, KindsOfCharacters) {
  const auto kind = [](std::string_view text) { return first_char(text).kind; };
  for (const char* const letter : {"a", "Z", "ß", "ǅ", "ʰ", "א", "日", "𝒜", "ª"})
    EXPECT_EQ(kind(letter), CharKind::kLetter) << letter;
  for (const char* const number : {"0", "²", "½", "Ⅷ", "٣", "〇", "𝟘"})
    EXPECT_EQ(kind(number), CharKind::kNumber) << number;
  // All of the property White_Space.
  for (const char32_t code :
       {0x9, 0xA, 0xB, 0xC, 0xD, 0x20, 0x85, 0xA0, 0x1680, 0x2000, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}) {
    std::string text;
    append_utf8(code, text);
    EXPECT_EQ(kind(text), CharKind::kSpace) << static_cast<unsigned>(code);
  }
  for (const char* const other : {"!", "_", "\x1C", "\u200B", "\uFEFF", "\u0301", "😀", "\x80", "\xFF", "\xC3"}) {
    EXPECT_EQ(kind(other), CharKind::kOther) << other;
  }
  EXPECT_EQ(first_char("\xE2\x82").length, 1);
  EXPECT_EQ(first_char("\xE2\x82").code, kNoCode);
  EXPECT_EQ(first_char("€").code, U'€');
}

TEST(Unicode, Utf8OfEveryCodePoint) {
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    append_utf8(code, text);
    ASSERT_EQ(utf8_length(text), text.size()) << static_cast<unsigned>(code);
    ASSERT_EQ(first_char(text).code, code);
  }
}

TEST(Unicode, Normalises) {
  const std::pair<const char*, const char*> kCases[] = {
      {"e\u0301", "é"},
      {"\u212B", "Å"},               // the angstrom sign
      {"a\u0301\u0323", "ạ\u0301"},  // marks go into their order first
      {"a\u0323\u0302", "ậ"},        // two steps
      {"\u1112\u1161\u11AB", "한"},  // Hangul by arithmetic
      {"\uAC00\u11A8", "각"},
      {"\u0958", "\u0915\u093C"},  // excluded from composition
      {"\u0344", "\u0308\u0301"},
      {"q\u0307\u0323", "q\u0323\u0307"},
      {"a\u0300\u0300", "à\u0300"},    // the second one is blocked
      {"\u0301e", "\u0301e"},          // nothing before it
      {"e\xFF\u0301", "e\xFF\u0301"},  // nor through a broken byte
      {"ﬁ\u00A0²", "ﬁ\u00A0²"},        // compatibility characters stay
      {"\u1100\u1100\u1161", "\u1100가"},
  };
  for (const auto& [text, normal] : kCases) EXPECT_EQ(nfc(text), normal) << text;
  EXPECT_EQ(nfc(std::string_view("a\0e\u0301", 5)), std::string_view("a\0é", 4));
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const std::string once = nfc(weft::testing::random_text(seed, 2, 2000));
    EXPECT_TRUE(nfc(once) == once);
  }
}

TEST(Unicode, NormalisesLongRunsOfMarksInTime) {
  std::string marks = "a";
  for (int i = 0; i < 300'000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0323";  // by bubble sort, 10^10 swaps
  const std::string normal = nfc(marks);
  EXPECT_TRUE(normal.starts_with("ạ\u0323\u0323"));
  EXPECT_TRUE(normal.ends_with("\u0301\u0301"));
}

using Pieces = std::vector<std::string>;

Pieces cut(std::initializer_list<Cut> cuts, std::string_view text) {
  Pieces pieces;
  for_each_word(std::vector(cuts), text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

TEST(PreTokenizer, Gpt2) {
  const std::pair<std::string_view, Pieces> kCases[] = {
      {"", {}},
      {"Hello world", {"Hello", " world"}},
      {"I'm can't we'll they'd you've it's're 'S",
       {"I", "'m", " can", "'t", " we", "'ll", " they", "'d", " you", "'ve", " it", "'s", "'re", " '", "S"}},
      {"a  b   c", {"a", " ", " b", "  ", " c"}},
      {"x \n\ny\n", {"x", " \n", "\n", "y", "\n"}},
      {"\tq", {"\t", "q"}},
      {"end   ", {"end", "   "}},
      {"abc123 45.6", {"abc", "123", " 45", ".", "6"}},
      {"日本語。テスト", {"日本語", "。", "テスト"}},
      {"a\u00A0b\u3000 c", {"a", "\u00A0", "b", "\u3000", " c"}},
      {"e\u0301!", {"e", "\u0301!"}},
      {"a\xFF\x80 \xFF", {"a", "\xFF\x80", " \xFF"}},
      {"''s", {"''", "s"}},
  };
  for (const auto& [text, pieces] : kCases) EXPECT_EQ(cut({Cut::kGpt2}, text), pieces) << text;
}

TEST(PreTokenizer, Cl100kAndQwen2) {
  const std::pair<std::string_view, Pieces> kCases[] = {
      {"Hello world", {"Hello", " world"}},
      {"I'M it'S 'LL x'ſ", {"I", "'M", " it", "'S", " '", "LL", " x", "'ſ"}},
      {"12345 6", {"123", "45", " ", "6"}},
      {"(foo) \tbar", {"(foo", ")", " ", "\tbar"}},
      {"a!!\n\nb", {"a", "!!\n\n", "b"}},
      {"x \n \n  y", {"x", " \n \n", " ", " y"}},
      {"x\r\n", {"x", "\r\n"}},
      {"a   ", {"a", "   "}},
      {"\na", {"\n", "a"}},
      {" !a", {" !", "a"}},
      {"!a", {"!a"}},
      {"\xFFqq", {"\xFFqq"}},
  };
  for (const auto& [text, pieces] : kCases) EXPECT_EQ(cut({Cut::kCl100k}, text), pieces) << text;
  EXPECT_EQ(cut({Cut::kQwen2}, "12 3a"), (Pieces{"1", "2", " ", "3", "a"}));
}

TEST(PreTokenizer, DigitsAndSequences) {
  EXPECT_EQ(cut({Cut::kDigits}, "ab12 ³4"), (Pieces{"ab", "1", "2", " ", "³", "4"}));
  EXPECT_EQ(cut({Cut::kDigitRuns}, "ab12 ³4"), (Pieces{"ab", "12", " ", "³4"}));
  EXPECT_EQ(cut({Cut::kDigitRuns, Cut::kGpt2}, "a b12"), (Pieces{"a", " b", "12"}));
  EXPECT_EQ(cut({}, "a b"), (Pieces{"a b"}));
  EXPECT_EQ(cut({}, ""), Pieces{});
}

TEST(PreTokenizer, LosesNothing) {
  for (const Cut cut_by : {Cut::kGpt2, Cut::kCl100k, Cut::kQwen2, Cut::kDigits, Cut::kDigitRuns}) {
    for (int kind = 0; kind < 3; ++kind) {
      const std::string text = weft::testing::random_text(3, kind, 5000);
      std::string joined;
      for (const std::string& piece : cut({cut_by}, text)) {
        EXPECT_FALSE(piece.empty());
        joined += piece;
      }
      EXPECT_TRUE(joined == text);
    }
  }
}

}  // namespace
}  // namespace weft::text
