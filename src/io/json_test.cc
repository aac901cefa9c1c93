#include "io/json.h"

#include <gtest/gtest.h>

#include "io/testing/files.h"

namespace weft {
namespace {

using testing::refuses;

TEST(Json, ReadsEveryKindOfValueInTheOrderOfTheFile) {
  const std::string text = R"({"b":[1,-2,2.5,true,null],"a":{"":"\u00e9\n"},"c":[],"d":{}})";
  EXPECT_EQ(parse_json(text, "x").dump(), R"({"b":[1,-2,2.5,true,null],"a":{"":"é\n"},"c":[],"d":{}})");
  EXPECT_EQ(parse_json(" 7 ", "x"), 7);
  EXPECT_EQ(parse_json("18446744073709551615", "x").get<std::uint64_t>(), 18446744073709551615U);
}

TEST(Json, SaysWhereItStopsBeingJson) {
  EXPECT_TRUE(refuses([] { parse_json("{\"a\":\n 1,,}", "m.json"); },
                      "[m.json] expected JSON: parse error at line 2, column 4"));
  for (const char* text :
       {"", "{", "[1,", "\"a", "{\"a\" 1}", "nul", "1 2", "[1]]", "\"\xff\"", "\"\\ud800\"", "1e999"}) {
    EXPECT_TRUE(refuses([&] { parse_json(text, "x"); }, "[x] expected JSON: ")) << text;
  }
}

TEST(Json, RefusesRepeatedKeysButNotInDifferentObjects) {
  EXPECT_TRUE(refuses([] { parse_json(R"({"a":1,"b":{"a":1},"a":2})", "x"); }, "has the key \"a\" twice"));
  EXPECT_EQ(parse_json(R"([{"a":1},{"a":{"a":2}}])", "x").size(), 2U);
}

TEST(Json, BoundsNestingAndNumberOfValues) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(parse_json(nested(kMaxJsonDepth), "x").size(), 1U);
  EXPECT_TRUE(refuses([&] { parse_json(nested(kMaxJsonDepth + 1), "x"); }, "nested deeper than 128 levels"));
  EXPECT_TRUE(refuses([&] { parse_json(std::string(50'000'000, '['), "x"); }, "nested deeper"));
  std::string many = "[0";
  for (std::size_t i = 0; i < kMaxJsonValues; ++i) many += ",0";
  EXPECT_TRUE(refuses([&] { parse_json(many + "]", "x"); }, "more than 4194304 values"));
}

TEST(Json, ReadsManyKeysInLinearTime) {
  std::string text = "{\"first\":0";
  for (int i = 0; i < 200'000; ++i) text += fmt::format(",\"{}\":0", i);  // quadratic: minutes
  EXPECT_EQ(parse_json(text + "}", "x").size(), 200'001U);
}

}  // namespace
}  // namespace weft
