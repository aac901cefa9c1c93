#include "models/recogniser.h"

#include <gtest/gtest.h>

#include <array>
#include <tuple>

namespace weft {
namespace {

struct Options {
  static constexpr std::string_view kFamily = "toy";
  std::array<int, 2> img_size = {8, 8};
  int patch_size = 4;
  int depth = 1;
  bool bias = false;
  std::optional<double> scale;

  static constexpr std::tuple kFields{
      Field{"img_size", &Options::img_size}, Field{"patch_size", &Options::patch_size}, Field{"depth", &Options::depth},
      Field{"bias", &Options::bias},         Field{"scale", &Options::scale},
  };
};

TensorIndex index_of(const std::vector<std::pair<std::string, Shape>>& tensors) {
  TensorIndex index;
  for (const auto& [name, shape] : tensors) index.emplace(name, TensorType{DType::kF32, shape});
  return index;
}

template <class E, class F>
std::string error_of(F&& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  return "no error";
}

std::optional<Layout> layout_of(const TensorIndex& index) { return Layout::find(index, "toy", {"a.0.w", "pos_embed"}); }

TEST(Layout, FindsTheNamesBehindAPrefixOfWholeWords) {
  const Shape one{1};
  for (const std::string prefix : {"", "net.", "module.net."}) {
    const TensorIndex index = index_of({{prefix + "a.0.w", one}, {prefix + "pos_embed", one}, {"head.w", one}});
    const auto layout = layout_of(index);
    ASSERT_TRUE(layout) << prefix;
    EXPECT_EQ(layout->prefix(), prefix);
    EXPECT_TRUE(layout->has("pos_embed"));
    EXPECT_EQ(layout->has("head.w"), prefix.empty());
    EXPECT_NE(layout->tensor_in_file("head.w"), nullptr);
    EXPECT_EQ(layout->in_file("x"), prefix + "x");
  }
  EXPECT_FALSE(layout_of(index_of({{"extra.0.w", one}, {"extpos_embed", one}}))) << "half a word";
  EXPECT_FALSE(layout_of(index_of({{"net.a.0.w", one}, {"pos_embed", one}}))) << "marks under different prefixes";
  EXPECT_FALSE(layout_of({}));
}

TEST(Layout, ReadsExtentsAndTellsWhatIsWrong) {
  const TensorIndex index = index_of({{"n.a.0.w", {3, 5}},
                                      {"n.a.1.w", {3, 5}},
                                      {"n.a.3.w", {3, 5}},
                                      {"n.pos_embed", {1, 0, 3}},
                                      {"n.huge", {(1 << 24) + 1}}});
  const Layout layout = *layout_of(index);
  EXPECT_EQ(layout.extent("a.0.w", 2, 1), 5);
  EXPECT_EQ(layout.count("a", "w"), 2) << "up to the first that is missing";
  EXPECT_EQ(layout.count("b", "w"), 0);
  const auto wrong = [&](std::string_view name, int rank) {
    return error_of<WeightError>([&] { (void)layout.extent(name, rank, rank == 3 ? 1 : 0); });
  };
  EXPECT_EQ(wrong("b", 1), "[toy] looks like a member of this family, but has no tensor n.b");
  EXPECT_EQ(wrong("a.0.w", 1), "[toy] n.a.0.w must have 1 axes, got [3,5]");
  EXPECT_EQ(wrong("pos_embed", 3), "[toy] n.pos_embed has an impossible shape [1,0,3]");
  EXPECT_EQ(wrong("huge", 1), "[toy] n.huge has an impossible shape [16777217]");
  EXPECT_TRUE(layout.renamed("n.").empty());
  EXPECT_EQ(layout.renamed("m.").at("n.a.0.w"), "m.a.0.w");
  EXPECT_EQ(layout.renamed("").at("n.pos_embed"), "pos_embed");
}

TEST(Recogniser, NotesWhyAndLetsTheUserWin) {
  const TensorIndex index = index_of({{"a.0.w", {3, 2}}, {"a.0.b", {3}}, {"a.1.w", {3, 2}}, {"pos_embed", {1, 10, 3}}});
  const Layout layout = *layout_of(index);
  const Json overrides = {{"scale", 0.5}};
  Recogniser<Options> r(layout, overrides);
  r.found_extent(&Options::patch_size, "a.0.w", 2, 1);
  r.found_depth("a", "w");
  r.found_presence(&Options::bias, "a.0.b");
  r.assumed(&Options::scale, std::nullopt, "leaves no trace");
  r.assume_img_size("pos_embed", layout.extent("pos_embed", 3, 1) - 1);
  const Recognition done = r.done({});
  EXPECT_EQ(done.config, Json({{"img_size", {6, 6}}, {"patch_size", 2}, {"depth", 2}, {"bias", true}, {"scale", 0.5}}));
  const std::vector<Finding> want = {
      {"patch_size", "2", "shape of a.0.w"},
      {"depth", "2", "number of a.*"},
      {"bias", "true", "a.0.b is there"},
      {"scale", "0.5", "set by the user"},
      {"img_size", "[6,6]", "pos_embed has 9 positions of patches, taken as a square", true}};
  ASSERT_EQ(done.findings.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    const Finding& got = done.findings[i];
    EXPECT_EQ(std::tie(got.option, got.value, got.reason, got.assumed),
              std::tie(want[i].option, want[i].value, want[i].reason, want[i].assumed));
  }
}

TEST(Recogniser, AsksForTheSizeWherePatchesMakeNoSquare) {
  for (const std::int64_t tokens : {1, 2, 11}) {  // less the one that is no patch: 0, 1 and 10
    const TensorIndex index = index_of({{"a.0.w", {3, 2}}, {"pos_embed", {1, tokens, 3}}});
    const Layout layout = *layout_of(index);
    const Json none = Json::object(), given = {{"img_size", {4, 40}}};
    const auto assume = [&](const Json& overrides) {
      Recogniser<Options> r(layout, overrides);
      r.assume_img_size("pos_embed", layout.extent("pos_embed", 3, 1) - 1);
      return r.done({}).config["img_size"];
    };
    if (tokens == 2) {
      EXPECT_EQ(assume(none), Json({4, 4}));
    } else {
      EXPECT_NE(error_of<ConfigError>([&] { assume(none); }).find("img_size=[H,W]"), std::string::npos);
    }
    EXPECT_EQ(assume(given), Json({4, 40}));
  }
  const TensorIndex index = index_of({{"a.0.w", {3, 2}}, {"pos_embed", {1, 1, 3}}});
  const Layout layout = *layout_of(index);
  const Json unknown = {{"dpeth", 3}};
  EXPECT_NE(error_of<ConfigError>([&] { Recogniser<Options>(layout, unknown).done({}); }).find("unknown key dpeth"),
            std::string::npos);
}

TEST(RangeCheck, TellsAllAtOnce) {
  RangeCheck check;
  check.within(3, 1, 4, "a");
  check.done("toy");
  check.within(5, 1, 4, "b");
  check.expect(false, "c", "odd");
  EXPECT_EQ(error_of<ConfigError>([&] { check.done("toy"); }), "[toy] b must be 1 … 4, got 5; c must be odd");
}

TEST(Config, NumbersStandForListsOfEqualOnes) {
  Json options = {{"size", 7}, {"list", {1, 2}}};
  number_to_list(options, "size", 2);
  number_to_list(options, "list", 1);
  number_to_list(options, "absent", 1);
  EXPECT_EQ(options, Json({{"size", {7, 7}}, {"list", {1, 2}}}));
  static_assert(option_name(&Options::depth) == "depth");
}

}  // namespace
}  // namespace weft
