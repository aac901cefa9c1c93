#include <gtest/gtest.h>

#include "core/format.h"
#include "core/random.h"
#include "io/testing/files.h"
#include "text/testing/vocabularies.h"
#include "weft/text.h"

namespace weft {
namespace {

using Strings = std::vector<std::string>;

struct Outcome {
  std::string shown;
  std::optional<std::size_t> matched;
  bool operator==(const Outcome&) const = default;
};

// The definition: the stop string that ends first, the longest of those that end there.
Outcome by_definition(const Strings& stops, std::string_view text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::size_t> found;
    for (std::size_t i = 0; i < stops.size(); ++i) {
      const bool longer = !found || stops[i].size() > stops[*found].size();
      if (text.substr(0, end).ends_with(stops[i]) && longer) found = i;
    }
    if (found) return {std::string(text.substr(0, end - stops[*found].size())), found};
  }
  return {std::string(text), std::nullopt};
}

TEST(StopMatcher, HoldsBackNoMoreThanItMust) {
  StopMatcher stop({"\nUser:", "END"});
  EXPECT_EQ(stop.push("Hello"), "Hello");
  EXPECT_EQ(stop.push(" E"), " ");
  EXPECT_EQ(stop.push("N"), "");
  EXPECT_EQ(stop.push("TER\n"), "ENTER");
  EXPECT_EQ(stop.push("\nUs"), "\n");
  EXPECT_FALSE(stop.stopped());
  EXPECT_EQ(stop.push(""), "");
  EXPECT_EQ(stop.push("er: never"), "");
  EXPECT_EQ(stop.matched(), 0U);
  EXPECT_EQ(stop.push("more"), "");
  EXPECT_EQ(stop.finish(), "");

  StopMatcher unfinished({"END"});
  EXPECT_EQ(unfinished.push("the EN"), "the ");
  EXPECT_EQ(unfinished.finish(), "EN");
  EXPECT_FALSE(unfinished.stopped());

  StopMatcher none({});
  EXPECT_EQ(none.push("anything"), "anything");
}

TEST(StopMatcher, DoesNotDependOnTheCuts) {
  Random random({4});
  int matches = 0;
  for (int round = 0; round < 3000; ++round) {
    const auto letters = [&](std::int64_t n) {
      std::string text;
      while (n-- > 0) text += random.chance(0.5) ? 'a' : 'b';
      return text;
    };
    Strings stops;
    for (std::int64_t n = random.below(4); n > 0; --n) stops.push_back(letters(1 + random.below(9)));
    const std::string text = letters(random.below(60));
    StopMatcher matcher(stops);
    Outcome got;
    for (std::size_t at = 0; at < text.size();) {
      const auto length = static_cast<std::size_t>(1 + random.below(5));
      got.shown += matcher.push(std::string_view(text).substr(at, length));
      at += length;
    }
    got.shown += matcher.finish();
    got.matched = matcher.matched();
    ASSERT_EQ(got.shown, by_definition(stops, text).shown) << text;
    // Equal stop strings are told by the first of them.
    ASSERT_EQ(got.matched, by_definition(stops, text).matched);
    matches += got.matched ? 1 : 0;
  }
  EXPECT_GT(matches, 500);
}

TEST(StopMatcher, RefusesEmptyStops) {
  EXPECT_TRUE(testing::refuses([] { StopMatcher({"a", ""}); }, "[stop] a stop string is empty"));
}

TEST(Utf8Stream, WaitsForWholeCharacters) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80!"), "😀!");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push("\xC3"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, ReplacesWhatIsNone) {
  const std::pair<std::string, const char*> kCases[] = {
      {"\x80", "\uFFFD"},
      {"\xFF\xFE", "\uFFFD\uFFFD"},
      {"\xC3x", "\uFFFDx"},
      {"\xE2\x82x", "\uFFFDx"},  // begun as a whole
      {"\xF0\x90\x80\xC3\xA9", "\uFFFDé"},
      {"\xE0\x80\x80", "\uFFFD\uFFFD\uFFFD"},            // overlong
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},            // a surrogate
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // beyond U+10FFFF
      {"\xC0\xAF", "\uFFFD\uFFFD"},
  };
  for (const auto& [bytes, text] : kCases) {
    Utf8Stream whole;
    std::string at_once = whole.push(bytes);
    at_once += whole.finish();
    EXPECT_EQ(at_once, text);
    Utf8Stream single;
    std::string out;
    for (const char c : bytes) out += single.push({&c, 1});
    EXPECT_EQ(out + single.finish(), text);
  }
  for (int kind = 0; kind < 3; ++kind) {
    const std::string bytes = testing::random_text(8, kind, 3000);
    Utf8Stream whole, cut;
    std::string want = whole.push(bytes);
    want += whole.finish();
    std::string got;
    for (std::size_t at = 0; at < bytes.size(); at += 3) got += cut.push(std::string_view(bytes).substr(at, 3));
    got += cut.finish();
    EXPECT_TRUE(got == want);  // without pages of bytes
    EXPECT_TRUE(is_utf8(got));
    if (kind == 2) {
      EXPECT_TRUE(got == bytes);
    }
  }
}

}  // namespace
}  // namespace weft
