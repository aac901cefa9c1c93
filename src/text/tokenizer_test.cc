#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "core/random.h"
#include "io/testing/files.h"
#include "text/testing/vocabularies.h"
#include "weft/text.h"

namespace weft {
namespace {

using testing::ByteLevelFile;
using testing::random_text;
using testing::refuses;
using testing::world_file;
using Tokens = std::vector<std::int32_t>;

Tokenizer from_text(std::string_view file) { return Tokenizer::load(std::as_bytes(std::span(file)), "x"); }

void expect_round_trip(const Tokenizer& tokenizer, int length = 3000) {
  for (int kind = 0; kind < 3; ++kind) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      const std::string text = random_text(seed, kind, length);
      const Tokens tokens = tokenizer.encode(text);
      ASSERT_TRUE(tokenizer.decode(tokens) == text) << "kind " << kind << " seed " << seed;
      ASSERT_TRUE(tokenizer.decode(tokenizer.encode(text, {.special = false})) == text);
    }
  }
  for (const std::string_view text : {"", "\xFF", "\x80", "\xC3", "\xE2\x82", "\xF0\x9F\x98", " ", "'"}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
}

// The definition: of all neighbours that can be merged, those of the first merge, the leftmost.
Tokens naive_merges(const std::vector<std::pair<std::string, std::string>>& merges, const Tokenizer& tokenizer,
                    std::string_view word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  while (true) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      // The last of several merges of a pair counts.
      for (std::size_t rank = merges.size(); rank-- > 0;) {
        if (merges[rank].first != parts[i] || merges[rank].second != parts[i + 1]) continue;
        if (rank < best) best = rank, at = i;
        break;
      }
    }
    if (best == merges.size()) break;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  Tokens tokens;
  for (const std::string& part : parts) {
    std::int32_t token = 0;
    while (tokenizer.bytes_of(token) != part) ++token;
    tokens.push_back(token);
  }
  return tokens;
}

TEST(Tokenizer, OfBytes) {
  const Tokenizer tokenizer = Tokenizer::bytes();
  EXPECT_EQ(tokenizer.size(), 256);
  EXPECT_EQ(tokenizer.name(), "bytes");
  EXPECT_FALSE(tokenizer.end_of_text());
  EXPECT_EQ(tokenizer.encode(std::string_view("a\0\xFF", 3)), (Tokens{97, 0, 255}));
  EXPECT_TRUE(refuses([&] { tokenizer.bytes_of(256); }, "a token: expected 0 … 255, got 256"));
  EXPECT_TRUE(refuses([&] { tokenizer.bytes_of(-1); }, "got -1"));
  expect_round_trip(tokenizer);
}

TEST(Tokenizer, WorldTakesTheLongestToken) {
  const Tokenizer tokenizer = from_text(world_file({"ab", "abcd", "bc", "日", "本日"}));
  EXPECT_EQ(tokenizer.name(), "RWKV World");
  EXPECT_EQ(tokenizer.size(), 262);
  EXPECT_EQ(tokenizer.end_of_text(), 0);
  EXPECT_EQ(tokenizer.bytes_of(0), "");
  // abc is no token: ab and c; abcd is.
  EXPECT_EQ(tokenizer.encode("abcabcdbc"), (Tokens{257, 'c' + 1, 258, 259}));
  EXPECT_EQ(tokenizer.encode("日本日"), (Tokens{260, 261}));
  expect_round_trip(tokenizer);
}

TEST(Tokenizer, ReadsPythonLiterals) {
  const Tokenizer tokenizer = from_text(
      "1 '\\x00' 1\n2 \"'\" 1\r\n3 '\"\\'' 2\n7 'é\\xe9\\u20ac\\U0001f600 \\\\' 13\n9 b'\\xe9\\'\\t\"' 4\n12 "
      "'\\r\\n\\t' 3\n20 ' ' 1\n");
  EXPECT_EQ(tokenizer.size(), 21);
  EXPECT_EQ(tokenizer.bytes_of(1), std::string_view("\0", 1));
  EXPECT_EQ(tokenizer.bytes_of(2), "'");
  EXPECT_EQ(tokenizer.bytes_of(3), "\"'");
  EXPECT_EQ(tokenizer.bytes_of(7), "éé€😀 \\");
  EXPECT_EQ(tokenizer.bytes_of(9), "\xE9'\t\"");
  EXPECT_EQ(tokenizer.bytes_of(12), "\r\n\t");
  EXPECT_EQ(tokenizer.bytes_of(20), " ");
  EXPECT_EQ(tokenizer.bytes_of(8), "");
  // Bytes without a token get numbers behind the vocabulary, so that nothing is lost.
  EXPECT_EQ(tokenizer.encode("a'"), (Tokens{21 + 'a', 2}));
  EXPECT_TRUE(refuses([&] { tokenizer.bytes_of(21 + '\''); }, "a token: expected 0 … 20, got 60"));
  expect_round_trip(tokenizer);
}

TEST(Tokenizer, WorldOwnsZeroWhenItIsListed) {
  EXPECT_FALSE(from_text("0 'a' 1\n").end_of_text());
  EXPECT_EQ(from_text("0 'a' 1\n").encode("a"), Tokens{0});
}

TEST(Tokenizer, RefusesBadWorldFiles) {
  const std::pair<const char*, const char*> kBad[] = {
      {"1 'a' 2\n", "[x:1] the token's length in bytes: expected 1, got 2"},
      {"1 'a' 1\n2 'b\n", "[x:2] expected a number, a token and its length, got 2 'b"},
      {"1 'a' 1\n2 'b 1\n", "[x:2] the token has no closing quote"},
      {"1 'a' 1\n1 'b' 1\n", "[x] token 1 is there twice"},
      {"1 'a' 1\n2 'a' 1\n", "[x] tokens 1 and 2 are both \"a\""},
      {"16777216 'a' 1\n", "the token's number: expected 0 … 16777215, got 16777216"},
      {"99999999999999999999 'a' 1\n", "the token's number"},
      {"1x 'a' 1\n", "the token's number"},
      {"1 '' 0\n", "expected a token of at least one byte"},
      {"1 '\\q' 2\n", "unknown escape \\q"},
      {"1 '\\x4' 1\n", "unknown escape"},
      {"1 '\\xzz' 1\n", "unknown escape"},
      {"1 b'\\u0041' 1\n", "unknown escape"},
      {"1 '\\ud800' 3\n", "no code point"},
      {"1 '\\U00110000' 4\n", "no code point"},
      {"1 'a'b' 3\n", "expected a space behind the token"},
      {"1 a 1\n", "expected a token in quotes"},
      {"1 b'é' 2\n", "expected ASCII in a token of bytes"},
      {"1 '\xFF' 1\n", "expected UTF-8"},
      {"1 'a' 1\n\n2 'b' 1\n", "[x:2] expected a number"},
      {"1 'a' -1\n", "the token's length"},
      {"7", "expected a number, a token and its length"},
      {"hello", "expected a tokenizer.json or a vocabulary of RWKV World, got a file that begins with \"hello\""},
      {"", "expected a tokenizer.json"},
      {"\x1F\x8B", "expected a tokenizer.json"},
  };
  for (const auto& [file, reason] : kBad) EXPECT_TRUE(refuses([&] { from_text(file); }, reason)) << file;
  const std::string large = "1 '" + std::string(1025, 'a') + "' 1025\n";
  EXPECT_TRUE(refuses([&] { from_text(large); }, "token 1: expected at most 1024 bytes, got 1025"));
}

TEST(Tokenizer, MergesAsDefined) {
  Random random({11});
  for (int round = 0; round < 60; ++round) {
    // Any order of merges, not only one that a training would give; some twice.
    ByteLevelFile file = {.merges_as_pairs = round % 2 == 1};
    std::vector<std::string> known = {"a", "b", "c"};
    for (int i = 0; i < 25; ++i) {
      const auto any = [&] {
        return known[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(known.size())))];
      };
      file.merges.emplace_back(any(), any());
      const std::string made = file.merges.back().first + file.merges.back().second;
      if (made.size() < 12) known.push_back(made);
    }
    for (std::size_t i = file.merges.size(); i-- > 1;) {
      std::swap(file.merges[i], file.merges[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i) + 1))]);
    }
    const Tokenizer tokenizer = from_text(file.text());
    for (int n = 0; n < 40; ++n) {
      std::string word;
      for (std::int64_t i = random.below(40) + 1; i > 0; --i) word += static_cast<char>('a' + random.below(3));
      ASSERT_EQ(tokenizer.encode(word), naive_merges(file.merges, tokenizer, word)) << word;
    }
    ASSERT_NO_FATAL_FAILURE(expect_round_trip(tokenizer, 300));
  }
}

std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options = {}) {
  std::vector<std::string> out;
  for (const std::int32_t token : tokenizer.encode(text, options)) out.emplace_back(tokenizer.bytes_of(token));
  return out;
}
using Pieces = std::vector<std::string>;

// Merges that join any run of these characters, so that tokens show where words were cut.
ByteLevelFile joining(std::string_view characters, int longest) {
  ByteLevelFile file;
  std::vector<std::string> words = {""};
  for (int length = 1; length <= longest; ++length) {
    std::vector<std::string> longer;
    for (const std::string& word : words) {
      for (const char c : characters) {
        if (!word.empty()) file.merges.emplace_back(word, std::string(1, c));
        longer.push_back(word + c);
      }
    }
    words = std::move(longer);
  }
  return file;
}

TEST(Tokenizer, FindsAddedTokensFirst) {
  ByteLevelFile file = joining("a ", 3);
  file.added = {R"({"content":"<|endoftext|>","special":true,"normalized":false})",
                R"({"content":"  ","special":false,"normalized":true})",
                R"({"content":"    ","special":false,"normalized":true})",
                R"({"content":"a<|","special":false,"normalized":true})"};
  const Tokenizer tokenizer = from_text(file.text());
  EXPECT_EQ(tokenizer.end_of_text(), tokenizer.size() - 4);
  EXPECT_EQ(tokenizer.name(), "byte-level BPE");
  // The longest of several; tokens that are not normalised before the others; a single space joins the word.
  EXPECT_EQ(pieces(tokenizer, "aa<|endoftext|>       a a"), (Pieces{"aa", "<|endoftext|>", "    ", "  ", " a", " a"}));
  EXPECT_EQ(pieces(tokenizer, "a<|<|endoftext|>"), (Pieces{"a<|", "<|endoftext|>"}));
  EXPECT_EQ(pieces(tokenizer, "<|endoftext|>", {.special = false}).size(), 13U);
  EXPECT_EQ(pieces(tokenizer, "<|endof"), (Pieces{"<", "|", "e", "n", "d", "o", "f"}));
  expect_round_trip(tokenizer);
}

TEST(Tokenizer, IgnoresMergesWhereTheFileSaysSo) {
  // b + c goes first, so that abc is never made by merges.
  ByteLevelFile file = {.merges = {{"b", "c"}, {"a", "b"}, {"ab", "c"}}};
  EXPECT_EQ(pieces(from_text(file.text()), "abc"), (Pieces{"a", "bc"}));
  file.model = R"("ignore_merges": true,)";
  EXPECT_EQ(pieces(from_text(file.text()), "abc"), (Pieces{"abc"}));
  EXPECT_EQ(pieces(from_text(file.text()), "abcb"), (Pieces{"a", "bc", "b"}));
}

TEST(Tokenizer, FollowsByteLevelsOptions) {
  ByteLevelFile file = joining(" a", 3);
  file.pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":true})";
  EXPECT_EQ(pieces(from_text(file.text()), "aa a"), (Pieces{" aa", " a"}));
  EXPECT_EQ(pieces(from_text(file.text()), " aa"), (Pieces{" aa"}));
  file.pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})";
  file.merges = {{"a", " "}, {"1", "2"}};
  EXPECT_EQ(pieces(from_text(file.text()), "a a12"), (Pieces{"a ", "a", "12"}));
  file.pre_tokenizer = R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},)"
                       R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]})";
  EXPECT_EQ(pieces(from_text(file.text()), "a 12"), (Pieces{"a", " ", "1", "2"}));
}

TEST(Tokenizer, NormalisesWhenAsked) {
  ByteLevelFile file = {.merges = {{"\xC3", "\xA9"}}, .normalizer = R"({"type":"NFC"})"};
  const Tokenizer tokenizer = from_text(file.text());
  EXPECT_EQ(pieces(tokenizer, "e\u0301").size(), 3U);
  EXPECT_EQ(pieces(tokenizer, "e\u0301", {.normalize = true}), (Pieces{"é"}));
  file.normalizer = "null";
  EXPECT_EQ(pieces(from_text(file.text()), "e\u0301", {.normalize = true}).size(), 3U);
}

TEST(Tokenizer, NamesWhatItDoesNotSupport) {
  const auto with = [](auto change) {
    ByteLevelFile file;
    change(file);
    return file.text();
  };
  const std::pair<std::string, const char*> kFiles[] = {
      {with([](auto& f) { f.model = R"("continuing_subword_prefix":"##",)"; }),
       "\"continuing_subword_prefix\" of \"##\""},
      {with([](auto& f) { f.normalizer = R"({"type":"Lowercase"})"; }), "the normalizer Lowercase is not supported"},
      {with([](auto& f) { f.pre_tokenizer = "null"; }), "a tokenizer other than byte-level"},
      {with([](auto& f) { f.pre_tokenizer = R"({"type":"Metaspace"})"; }), "Metaspace"},
      {with([](auto& f) { f.pre_tokenizer = R"({"type":"Sequence","pretokenizers":[]})"; }), "an empty sequence"},
      {with([](auto& f) {
         f.pre_tokenizer = R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"x+"},)"
                           R"("behavior":"Isolated"},{"type":"ByteLevel"}]})";
       }),
       R"(splitting by {"Regex":"x+"} is not supported)"},
      {with([](auto& f) { f.added = {R"({"content":"<mask>","lstrip":true})"}; }),
       "\"lstrip\" of the added token \"<mask>\""},
      {R"({"model":{"type":"WordPiece"}})", "a model of type \"WordPiece\" is not supported"},
  };
  for (const auto& [file, reason] : kFiles) {
    EXPECT_TRUE(refuses([&] { from_text(file); }, reason)) << reason;
    EXPECT_THROW(from_text(file), UnsupportedError);
  }
}

TEST(Tokenizer, RefusesBadTokenizerFiles) {
  const auto model = [](std::string_view vocabulary, std::string_view merges) {
    return R"({"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":)" + std::string(vocabulary) +
           R"(,"merges":)" + std::string(merges) + "}}";
  };
  const std::pair<std::string, const char*> kFiles[] = {
      {"{", "expected JSON"},
      {"{}", "a tokenizer.json has an object \"model\", got nothing"},
      {R"({"model":{"type":"BPE"}})", "\"vocab\": expected an object, got nothing"},
      {model("[1]", "[]"), "\"vocab\": expected an object, got [1]"},
      {model(R"({"a":-1})", "[]"), "the number of token \"a\": expected 0 … 16777215, got -1"},
      {model(R"({"a":16777216})", "[]"), "got 16777216"},
      {model(R"({"a":1e30})", "[]"), "got 1e+30"},
      {model(R"({"a":1,"a":2})", "[]"), "the key \"a\" twice"},
      {model(R"({"a":1,"b":1})", "[]"), "token 1 is there twice: \"a\" and \"b\""},
      {model(R"({"a":1})", "7"), "\"merges\": expected a list, got 7"},
      {model(R"({"a":1})", R"(["a"])"), "a merge: expected two tokens, got \"a\""},
      {model(R"({"a":1})", R"([["a","a","a"]])"), "a merge: expected two tokens"},
      {model(R"({"a":1})", R"(["a a"])"), "the merge \"a a\": expected tokens of the vocabulary, got \"aa\""},
      {model(R"({"a":1})", R"(["a b"])"), "got \"b\""},
      {model(R"({"a":1,"aa":1000000000000})", R"(["a a"])"), "the number of token"},
      {R"({"added_tokens":[{"content":"a","id":5}],"model":{"vocab":{"a":1},"merges":[]}})",
       "the added token \"a\": expected its number 1, got 5"},
      {R"({"added_tokens":[{"content":"b","id":1}],"pre_tokenizer":{"type":"ByteLevel"},"model":{"vocab":{"a":1},"merges":[]}})",
       "token 1 is there twice"},
      {R"({"added_tokens":[7],"model":{"vocab":{"a":1},"merges":[]}})", "an added token: expected an object, got 7"},
      {model(R"({"a":1})", "[]") + "x", "expected JSON"},
      {model("{\"" + std::string(2000, 'a') + "\":1}", "[]"), "token 1: expected at most 1024 bytes, got 2000"},
  };
  for (const auto& [file, reason] : kFiles) EXPECT_TRUE(refuses([&] { from_text(file); }, reason)) << file;
  const std::string whole = joining("ab", 2).text();
  for (std::size_t cut = 1; cut < whole.size(); cut += 97) {
    EXPECT_TRUE(refuses([&] { from_text(whole.substr(0, cut)); }, "expected JSON")) << cut;
  }
}

TEST(Tokenizer, TakesHolesAndForgetsNothing) {
  // A number near the bound, and a vocabulary without most bytes.
  const Tokenizer tokenizer = from_text(
      R"({"pre_tokenizer":{"type":"ByteLevel"},"model":{"vocab":{"a":16777215,"aa":3,"▁x":4},"merges":["a a"]}})");
  EXPECT_EQ(tokenizer.size(), 1 << 24);
  EXPECT_EQ(tokenizer.encode("aaa"), (Tokens{(1 << 24) + ' ', 3, (1 << 24) - 1}));  // add_prefix_space is on by default
  EXPECT_EQ(tokenizer.bytes_of(4), "▁x");
  EXPECT_EQ(tokenizer.bytes_of(5), "");
}

TEST(Tokenizer, TakesLongWordsInTime) {
  // In quadratic time this would take hours.
  const std::string word(2'000'000, 'a');
  const ByteLevelFile doubling = {.merges = {{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}}};
  EXPECT_EQ(from_text(doubling.text()).encode(word).size(), word.size() / 8);
  const std::string mixed = random_text(1, 1, 2'000'000);
  const Tokenizer tokenizer = from_text(joining("ab", 4).text());
  EXPECT_TRUE(tokenizer.decode(tokenizer.encode(mixed)) == mixed);
  const Tokenizer world = from_text(world_file({std::string(1024, 'a')}));
  EXPECT_EQ(world.encode(std::string(1023, 'a')).size(), 1023U);
}

TEST(Tokenizer, IsSharedByThreads) {
  const Tokenizer tokenizer = from_text(joining("ab ", 3).text());
  const std::string text = random_text(5, 1, 50000);
  const Tokens want = tokenizer.encode(text);
  std::vector<Tokens> got(4);
  std::vector<std::thread> threads;
  for (Tokens& tokens : got) threads.emplace_back([&tokens, tokenizer, &text] { tokens = tokenizer.encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const Tokens& tokens : got) EXPECT_EQ(tokens, want);
}

// The published vocabularies, in the folder that WEFT_TOKENIZERS names.
class PublishedTokenizer : public ::testing::Test {
 protected:
  static std::optional<Tokenizer> find(const char* file) {
    const char* const folder = std::getenv("WEFT_TOKENIZERS");
    if (folder == nullptr || !std::filesystem::exists(std::filesystem::path(folder) / file)) return std::nullopt;
    return Tokenizer::load(std::filesystem::path(folder) / file);
  }
};

TEST_F(PublishedTokenizer, GptNeox20B) {
  const auto tokenizer = find("20B_tokenizer.json");
  if (!tokenizer) GTEST_SKIP() << "WEFT_TOKENIZERS names no folder with 20B_tokenizer.json";
  EXPECT_EQ(tokenizer->size(), 50277);
  EXPECT_EQ(tokenizer->end_of_text(), 0);
  // Ids that an independent program of Hugging Face's rules gives.
  EXPECT_EQ(tokenizer->encode("Hello, world!  It's 2026.\n\n\tfoo()  {   return x_1 != 'y'; }"),
            (Tokens{12092, 13,    1533, 2,     50276, 1147, 434, 1384, 1731, 15,  535, 186,  12110,
                    1082,  50276, 92,   50275, 2309,  1269, 64,  18,   3613, 686, 90,  5618, 748}));
  EXPECT_EQ(
      tokenizer->encode("Ünïcödé: 日本語のテキスト, 한국어, عربى, 😀👨\u200D👩\u200D👧 e\u0301"),
      (Tokens{127, 239, 79,    12589, 68,    25873, 860,   27,  209,   49868, 19119, 241,   3917, 28656, 33548, 38206,
              13,  209, 39742, 166,   115,   244,   39907, 13,  25849, 6900,  13621, 25378, 13,   49042, 211,   14931,
              228, 103, 325,   224,   14931, 228,   104,   325, 224,   14931, 228,   102,   299,  136,   212}));
  EXPECT_EQ(tokenizer->encode("<|endoftext|>  a\u3000b\r\n"), (Tokens{0, 50276, 66, 19409, 67, 2379}));
  expect_round_trip(*tokenizer);
}

TEST_F(PublishedTokenizer, RwkvWorld) {
  const auto tokenizer = find("rwkv_vocab_v20230424.txt");
  if (!tokenizer) GTEST_SKIP() << "WEFT_TOKENIZERS names no folder with rwkv_vocab_v20230424.txt";
  EXPECT_EQ(tokenizer->size(), 65530);
  EXPECT_EQ(tokenizer->end_of_text(), 0);
  // Ids that RWKV's own script gives.
  EXPECT_EQ(tokenizer->encode("Hello, world!  It's 2026.\n\n\tfoo()  {   return x_1 != 'y'; }"),
            (Tokens{33155, 45,  40213, 34,    267, 1141, 460, 3493, 646, 47,  3327, 7578, 472,
                    267,   124, 3340,  42178, 355, 96,   50,  3343, 274, 122, 449,  360}));
  EXPECT_EQ(tokenizer->encode("Ünïcödé: 日本語のテキスト, 한국어, عربى, 😀👨\u200D👩\u200D👧 e\u0301"),
            (Tokens{2490,  111, 2509,  100,   9350, 2503, 59,    33,   13053, 13205, 16592, 10138, 10199, 10177,
                    43480, 45,  48324, 18830, 45,   5149, 28221, 2953, 45,    33,    3319,  153,   129,   3319,
                    146,   169, 9810,  3319,  146,  170,  9810,  3319, 146,   168,   336,   2672}));
  EXPECT_EQ(tokenizer->encode("<|endoftext|>  a\u3000b\r\n"),
            (Tokens{61, 125, 25258, 7588, 2318, 125, 63, 267, 98, 10078, 99, 263}));
  expect_round_trip(*tokenizer);
}

}  // namespace
}  // namespace weft
