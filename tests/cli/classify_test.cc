// weft classify: order, batches, bad pictures, patterns, the standard input.
#include <algorithm>
#include <cmath>

#include "tests/cli/command.h"

namespace weft::testing {
namespace {

class Classify : public ::testing::Test {
 protected:
  Outcome run(std::vector<std::string> arguments, const RunOptions& options = {}) {
    arguments.insert(arguments.begin(), {"classify", "--model", model_});
    return weft_command(std::move(arguments), options);
  }
  std::string picture(const std::string& name, std::int64_t height = 32, std::int64_t width = 32) {
    write_picture(folder_ / name, noise(height, width, ++seed_));
    return folder_ / name;
  }

  ScratchFolder folder_;
  std::string model_ = write_small_model(folder_ / "model.safetensors");
  unsigned seed_ = 0;
};

TEST_F(Classify, PrintsLabelsWithProbabilities) {
  const std::string path = picture("one.tif");
  const Outcome outcome = run({path, "--top", "3"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 4U) << outcome.out;
  EXPECT_EQ(lines[0], path);
  for (const std::string& line : {lines[1], lines[2], lines[3]}) {
    EXPECT_NE(line.find(" %  class_"), std::string::npos) << line;
  }
}

TEST_F(Classify, GivesTheLibrarysNumbers) {
  const Image image = noise(50, 41, 99);
  write_picture(folder_ / "a.tif", image);
  Json json = only_json(run({"--json", folder_ / "a.tif"}).out);
  const auto expected = Session(Model::load(model_)).classify(image, 5);
  ASSERT_EQ(json["predictions"].size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(json["predictions"][i]["label"], expected[i].label);
    EXPECT_EQ(json["predictions"][i]["index"], expected[i].index);
    // The same code on the same bits; JSON prints doubles so that they come back exactly.
    EXPECT_EQ(json["predictions"][i]["probability"].get<double>(), expected[i].probability);
  }
}

TEST_F(Classify, ProbabilitiesOfAllClassesSumToOne) {
  Json json = only_json(run({"--json", "--top", "1000", picture("a.tif")}).out);
  ASSERT_EQ(json["predictions"].size(), 7U);
  double sum = 0;
  for (const Json& p : json["predictions"]) sum += p["probability"].get<double>();
  EXPECT_NEAR(sum, 1, 7 * 2.3e-16);  // seven additions in double precision
}

TEST_F(Classify, KeepsTheOrderWhateverBatchAndThreads) {
  std::vector<std::string> arguments = {"--json"};
  std::vector<std::string> names;
  for (int i = 0; i < 23; ++i) {
    names.push_back(picture(fmt::format("{}.tif", (i * 7) % 23), 20 + i, 60 - i));
    arguments.push_back(names.back());
  }
  std::vector<Json> reference = json_lines(run(arguments).out);
  ASSERT_EQ(reference.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) EXPECT_EQ(reference[i]["file"], names[i]);
  for (const std::vector<std::string>& extra :
       {std::vector<std::string>{"--batch", "1"}, {"--batch", "5", "--threads", "1"}, {"--threads", "7"}}) {
    std::vector<std::string> all = arguments;
    all.insert(all.begin(), extra.begin(), extra.end());
    std::vector<Json> other = json_lines(run(all).out);
    ASSERT_EQ(other.size(), names.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
      EXPECT_EQ(other[i]["file"], names[i]);
      EXPECT_EQ(other[i]["predictions"][0]["index"], reference[i]["predictions"][0]["index"]);
      // Batches may use other tiles: f32 sums in another order, at most a few units in the last place of a logit.
      EXPECT_NEAR(other[i]["predictions"][0]["probability"].get<double>(),
                  reference[i]["predictions"][0]["probability"].get<double>(), 1e-5);
    }
  }
}

TEST_F(Classify, SkipsBadPictures) {
  write_text(folder_ / "bad.jpg", "this is no picture");
  const std::string first = picture("first.tif"), last = picture("last.tif");
  const Outcome outcome = run({first, folder_ / "bad.jpg", last, "--top", "1"});
  expect_error(outcome, 1, "bad.jpg");
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 4U) << outcome.out;
  EXPECT_EQ(lines[0], first);
  EXPECT_EQ(lines[2], last);
}

TEST_F(Classify, TellsBadPicturesInJson) {
  write_text(folder_ / "bad.jpg", "this is no picture");
  const Outcome outcome = run({"--json", folder_ / "bad.jpg", picture("good.tif"), folder_ / "missing.png"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(lines_of(outcome.err).size(), 2U) << outcome.err;
  std::vector<Json> json = json_lines(outcome.out);
  ASSERT_EQ(json.size(), 3U);
  EXPECT_TRUE(json[0].contains("error"));
  EXPECT_TRUE(json[1].contains("predictions"));
  EXPECT_TRUE(json[2].contains("error"));
  EXPECT_EQ(json[2]["file"], folder_ / "missing.png");
}

TEST_F(Classify, OnlyBadPictures) {
  write_text(folder_ / "empty.png", "");
  expect_error(run({folder_ / "empty.png"}), 1, "empty.png");
  expect_error(run({folder_ / "missing.png"}), 1, "missing.png");
  expect_error(run({folder_.path().string()}), 1, "folder");
}

TEST_F(Classify, ReadsTheStandardInput) {
  const std::string bytes = write_picture(folder_ / "a.tif", noise(32, 32, 5));
  Json from_file = only_json(run({"--json", folder_ / "a.tif"}).out);
  Json from_stdin = only_json(run({"--json", "-"}, {.input = bytes}).out);
  EXPECT_EQ(from_stdin["file"], "-");
  EXPECT_EQ(from_stdin["predictions"], from_file["predictions"]);
  expect_error(run({"-"}), 1, "standard input");
}

TEST_F(Classify, ExpandsPatterns) {
  picture("b.tif");
  picture("a.tif");
  std::vector<Json> json = json_lines(run({"--json", folder_ / "?.tif"}).out);
  ASSERT_EQ(json.size(), 2U);
  EXPECT_EQ(json[0]["file"], folder_ / "a.tif");
  EXPECT_EQ(json[1]["file"], folder_ / "b.tif");
  expect_error(run({folder_ / "*.gif"}), 1, "no file matches");
  const std::string odd = picture("[odd].tif");
  EXPECT_EQ(only_json(run({"--json", odd}).out)["file"], odd);
}

TEST_F(Classify, TakesAnySize) {
  std::vector<std::string> arguments = {"--json", "--any-size"};
  const std::vector<std::pair<int, int>> sizes = {{1, 1}, {1, 40}, {33, 8}, {64, 48}, {64, 48}, {7, 9}};
  for (const auto& [height, width] : sizes) {
    arguments.push_back(picture(fmt::format("{}.tif", seed_), height, width));
  }
  const Outcome outcome = run(arguments);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  std::vector<Json> json = json_lines(outcome.out);
  ASSERT_EQ(json.size(), sizes.size());
  for (const Json& one : json) EXPECT_TRUE(std::isfinite(one["predictions"][0]["probability"].get<double>()));
}

TEST_F(Classify, TakesTinyAndLongPicturesWithTheModelsPreprocessing) {
  const Outcome outcome = run({"--json", picture("dot.tif", 1, 1), picture("line.tif", 2, 300)});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(json_lines(outcome.out).size(), 2U);
}

TEST_F(Classify, TheEnvironmentNamesTheDefaultModel) {
  const std::string path = picture("a.tif");
  const RunOptions options{.environment = {{"WEFT_MODEL", model_}}};
  Json json = only_json(weft_command({"classify", "--json", path}, options).out);
  EXPECT_TRUE(json["predictions"][0]["label"].get<std::string>().starts_with("class_"));
  const RunOptions missing{.environment = {{"WEFT_MODEL", folder_ / "gone.safetensors"}}};
  expect_error(weft_command({"classify", path}, missing), 1, "gone.safetensors");
}

TEST_F(Classify, FileNamesThatAreNoUtf8) {
  const std::string path = picture("caf\xE9.tif");
  EXPECT_EQ(run({"--json", path}).code, 0);
  const Outcome outcome = run({path});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out.find('\xE9'), std::string::npos);
}

TEST_F(Classify, ABareBackboneHasNoClasses) {
  const LoadOptions bare{.section = "", .config = {{"embed_dims", "8"}, {"depth", "1"}, {"head", "none"}}};
  Model::create("vrwkv_tiny", 0, bare).save(folder_ / "bare.safetensors");
  expect_error(weft_command({"classify", "--model", folder_ / "bare.safetensors", picture("a.tif")}), 1, "backbone");
}

}  // namespace
}  // namespace weft::testing
