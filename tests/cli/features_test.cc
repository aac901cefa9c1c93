// weft features: statistics, arrays in files, layers.
#include <cmath>
#include <numeric>

#include "io/npy.h"
#include "io/safetensors.h"
#include "tests/cli/command.h"

namespace weft::testing {
namespace {

class FeaturesCommand : public ::testing::Test {
 protected:
  Outcome run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"features", "--model", model_});
    return weft_command(std::move(arguments));
  }
  std::string picture(const std::string& name, std::int64_t height = 32, std::int64_t width = 32) {
    write_picture(folder_ / name, noise(height, width, ++seed_));
    return folder_ / name;
  }

  ScratchFolder folder_;
  std::string model_ = write_small_model(folder_ / "model.safetensors");
  unsigned seed_ = 0;
};

Tensor tensor_in(const SafetensorsFile& file, std::string_view name) {
  for (const auto& [its_name, tensor] : file.tensors) {
    if (its_name == name) return tensor;
  }
  ADD_FAILURE() << "no tensor " << name;
  return {};
}

TEST_F(FeaturesCommand, PrintsStatisticsOfEveryPicture) {
  const Outcome outcome = run({"--layers", "0,-1", picture("a.tif"), picture("b.tif")});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 8U) << outcome.out;
  EXPECT_NE(lines[1].find("layer 0"), std::string::npos);
  EXPECT_NE(lines[1].find("[24,4,4]"), std::string::npos);
  EXPECT_NE(lines[2].find("layer 1"), std::string::npos);
  EXPECT_NE(lines[3].find("pooled"), std::string::npos);
}

TEST_F(FeaturesCommand, JsonHoldsStatisticsAndThePooledVector) {
  const Image image = noise(32, 32, 77);
  write_picture(folder_ / "a.tif", image);
  Json json = only_json(run({"--json", folder_ / "a.tif"}).out);
  const Features expected = Session(Model::load(model_)).features(image);
  const auto map = expected.maps.back().data<float>();
  const double mean = std::accumulate(map.begin(), map.end(), 0.0) / static_cast<double>(map.size());
  ASSERT_EQ(json["layers"].size(), 1U);
  EXPECT_EQ(json["layers"][0]["layer"], 1);
  EXPECT_EQ(json["layers"][0]["shape"], Json({24, 4, 4}));
  EXPECT_EQ(json["layers"][0]["mean"].get<double>(), mean);  // the same sum in the same order
  EXPECT_EQ(json["layers"][0]["min"].get<float>(), *std::ranges::min_element(map));
  const auto pooled = expected.pooled.data<float>();
  EXPECT_EQ(json["pooled"].get<std::vector<float>>(), std::vector<float>(pooled.begin(), pooled.end()));
}

TEST_F(FeaturesCommand, WritesPooledVectorsOfManySizesAsNpy) {
  const std::string out = folder_ / "pooled.npy";
  const Outcome outcome =
      run({"--out", out, "--any-size", picture("a.tif"), picture("b.tif", 16, 40), picture("c.tif")});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const Tensor pooled = read_npy(out);
  EXPECT_EQ(pooled.type().str(), "f32[3,24]");
  const Tensor expected = Session(Model::load(model_)).features(noise(32, 32, 1)).pooled;
  // A batch may sum in another order than a single picture: a few units in the last place of values around 1.
  for (int i = 0; i < 24; ++i) {
    EXPECT_NEAR(pooled.data<float>()[static_cast<std::size_t>(i)], expected.data<float>()[static_cast<std::size_t>(i)],
                1e-5);
  }
}

TEST_F(FeaturesCommand, WritesAMapAsNpy) {
  const std::string out = folder_ / "map.npy";
  EXPECT_EQ(run({"--out", out, "--map", "0", picture("a.tif"), picture("b.tif")}).code, 0);
  EXPECT_EQ(read_npy(out).type().str(), "f32[2,24,4,4]");
}

TEST_F(FeaturesCommand, WritesEverythingAsSafetensors) {
  const std::string out = folder_ / "all.safetensors";
  const std::string a = picture("a.tif", 20, 33), b = picture("b.tif", 20, 33);
  const Outcome outcome = run({"--json", "--any-size", "--layers", "1,0,1", "--batch", "1", "--out", out, a, b});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  Json json = only_json(outcome.out);
  EXPECT_EQ(json["files"], Json({a, b}));
  EXPECT_EQ(json["tensors"]["map_0"], Json({2, 24, 3, 5}));  // sides over 8, rounded up
  const SafetensorsFile file = read_safetensors(map_file(out));
  EXPECT_EQ(tensor_in(file, "map_0").type().str(), "f32[2,24,3,5]");
  EXPECT_EQ(tensor_in(file, "map_1").type().str(), "f32[2,24,3,5]");
  EXPECT_EQ(tensor_in(file, "pooled").type().str(), "f32[2,24]");
  EXPECT_EQ(Json::parse(file.metadata.at("files")), Json({a, b}));
  EXPECT_EQ(file.metadata.at("model"), "model.safetensors");
}

TEST_F(FeaturesCommand, MapsOfDifferentSizesDoNotShareAFile) {
  const std::string out = folder_ / "all.safetensors";
  const Outcome outcome = run({"--any-size", "--out", out, picture("a.tif"), picture("b.tif", 48, 32)});
  expect_error(outcome, 1, "b.tif");
  EXPECT_EQ(tensor_in(read_safetensors(map_file(out)), "pooled").type().str(), "f32[1,24]");
}

TEST_F(FeaturesCommand, SkipsBadPictures) {
  write_text(folder_ / "bad.png", "no picture");
  const std::string out = folder_ / "pooled.npy";
  expect_error(run({"--out", out, folder_ / "bad.png", picture("a.tif")}), 1, "bad.png");
  EXPECT_EQ(read_npy(out).type().str(), "f32[1,24]");
}

TEST_F(FeaturesCommand, Refuses) {
  const std::string path = picture("a.tif");
  expect_error(run({"--layers", "2", path}), 1, "no layer 2");
  expect_error(run({"--layers=-3", path}), 1, "no layer -3");
  expect_error(run({"--out", folder_ / "no/such/folder.npy", path}), 1, "folder.npy");
  expect_error(run({"--out", folder_ / "a.npy", "--map", "0", "--layers", "1", path}), 2, "--map");
}

}  // namespace
}  // namespace weft::testing
