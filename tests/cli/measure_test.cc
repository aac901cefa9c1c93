// weft eval and weft bench.
#include <filesystem>

#include "tests/cli/command.h"

namespace weft::testing {
namespace {

class EvalCommand : public ::testing::Test {
 protected:
  Outcome run(std::vector<std::string> arguments, const RunOptions& options = {}) {
    arguments.insert(arguments.begin(), {"eval", "--json", "--model", model_});
    return weft_command(std::move(arguments), options);
  }
  // What the model says is in the picture, most likely first.
  std::vector<int> ranking(const Image& image) {
    std::vector<int> classes;
    for (const Prediction& p : Session(Model::load(model_)).classify(image, 7)) classes.push_back(p.index);
    return classes;
  }
  void add(const std::string& folder, const std::string& name, const Image& image) {
    std::filesystem::create_directories(folder_ / folder);
    write_picture(folder_ / (folder + "/" + name), image);
  }
  std::string label(int index) { return std::string("class_") + static_cast<char>('a' + index); }

  ScratchFolder folder_;
  std::string model_ = write_small_model(folder_ / "model.safetensors");
};

TEST_F(EvalCommand, CountsTopOneAndTopFiveByFolderNames) {
  // Four pictures: two in the class that the model finds likeliest, one in its third, one in its last.
  for (unsigned i = 0; i < 4; ++i) {
    const Image image = noise(32, 32, 10 + i);
    const std::vector<int> order = ranking(image);
    const int truth = i < 2 ? order[0] : i == 2 ? order[2] : order[6];
    add("data/" + label(truth), fmt::format("{}.tif", i), image);
  }
  const Outcome outcome = run({folder_ / "data"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  Json json = only_json(outcome.out);
  EXPECT_EQ(json["pictures"], 4);
  EXPECT_EQ(json["failed"], 0);
  EXPECT_EQ(json["top1"], 0.5);
  EXPECT_EQ(json["top5"], 0.75);
}

TEST_F(EvalCommand, TakesOtherFolderNamesInSortedOrder) {
  const Image image = noise(32, 32, 20);
  const int truth = ranking(image)[0];
  for (int i = 0; i < 7; ++i) std::filesystem::create_directories(folder_ / fmt::format("data/n{}", 10 + i));
  add(fmt::format("data/n{}", 10 + truth), "a.tif", image);
  EXPECT_EQ(only_json(run({folder_ / "data"}).out)["top1"], 1.0);
}

TEST_F(EvalCommand, RefusesFoldersThatAreNotTheClasses) {
  add("two/x", "a.tif", noise(8, 8, 1));
  add("two/y", "a.tif", noise(8, 8, 1));
  expect_error(run({folder_ / "two"}), 1, "7 classes");
  add("mixed/class_a", "a.tif", noise(8, 8, 1));
  add("mixed/stranger", "a.tif", noise(8, 8, 1));
  expect_error(run({folder_ / "mixed"}), 1, "stranger");
  std::filesystem::create_directories(folder_ / "empty");
  expect_error(run({folder_ / "empty"}), 1, "sub-folders");
  expect_error(run({folder_ / "gone"}), 1, "gone");
}

TEST_F(EvalCommand, CountsBadPictures) {
  add("data/class_a", "a.tif", noise(32, 32, 1));
  write_text(folder_ / "data/class_a/b.jpg", "no picture");
  const Outcome outcome = run({folder_ / "data"});
  expect_error(outcome, 1, "b.jpg");
  EXPECT_EQ(only_json(outcome.out)["pictures"], 1);
  EXPECT_EQ(only_json(outcome.out)["failed"], 1);
}

// CIFAR-10's layout: the label, then three planes.
std::string record(const Image& image, int label) {
  std::string text(1, static_cast<char>(label));
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t i = 0; i < 32 * 32; ++i) text += static_cast<char>(image.pixels[3 * i + c]);
  }
  return text;
}

TEST_F(EvalCommand, ReadsCifarRecordsFromFilesAndPipes) {
  std::string records;
  for (unsigned i = 0; i < 10; ++i) {
    const Image image = noise(32, 32, 30 + i);
    records += record(image, ranking(image)[i < 6 ? 0 : 6]);
  }
  write_text(folder_ / "data.bin", records);
  Json from_file = only_json(run({"--batch", "4", folder_ / "data.bin"}).out);
  EXPECT_EQ(from_file["pictures"], 10);
  EXPECT_EQ(from_file["top1"], 0.6);
  EXPECT_EQ(from_file["top5"], 0.6);
  Json from_pipe = only_json(run({"-"}, {.input = records}).out);
  EXPECT_EQ(from_pipe["top1"], 0.6);
  Json limited = only_json(run({"--limit", "5", folder_ / "data.bin"}).out);
  EXPECT_EQ(limited["pictures"], 5);
  EXPECT_EQ(limited["top1"], 0.6) << "pictures 0, 2, 4, 6, 8";
  Json first = only_json(run({"--limit", "6", "-"}, {.input = records}).out);
  EXPECT_EQ(first["pictures"], 6);
  EXPECT_EQ(first["top1"], 1.0);
}

TEST_F(EvalCommand, RefusesWhatIsNoCifarFile) {
  write_text(folder_ / "odd.bin", std::string(3074, '\0'));
  expect_error(run({folder_ / "odd.bin"}), 1, "3073");
  write_text(folder_ / "label.bin", record(noise(32, 32, 1), 200));
  expect_error(run({folder_ / "label.bin"}), 1, "label 200");
  write_text(folder_ / "packed.xz", std::string("\xFD"
                                                "7zXZ\0",
                                                6) +
                                        std::string(100, 'x'));
  expect_error(run({folder_ / "packed.xz"}), 1, "xz -dc");
  expect_error(run({"-"}, {.input = std::string(100, '\0')}), 1, "3073 bytes, got 100");
  expect_error(run({"-"}), 1, "got 0");
}

std::string big_endian(std::uint32_t number) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(number >> shift & 0xFF);
  return text;
}

TEST_F(EvalCommand, ReadsIdxFilesFromFileAndFolder) {
  std::string pictures = big_endian(0x803) + big_endian(4) + big_endian(32) + big_endian(32);
  std::string labels = big_endian(0x801) + big_endian(4);
  for (unsigned i = 0; i < 4; ++i) {
    Image image = noise(32, 32, 50 + i);
    for (std::size_t p = 0; p < image.pixels.size(); ++p) {
      image.pixels[p] = image.pixels[p - p % 3];
      if (p % 3 == 0) pictures += static_cast<char>(image.pixels[p]);
    }
    labels += static_cast<char>(ranking(image)[i == 0 ? 6 : 0]);
  }
  write_text(folder_ / "t10k-images-idx3-ubyte", pictures);
  write_text(folder_ / "t10k-labels-idx1-ubyte", labels);
  for (const char* data : {"t10k-images-idx3-ubyte", "."}) {
    const Outcome outcome = run({folder_ / data});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(only_json(outcome.out)["pictures"], 4);
    EXPECT_EQ(only_json(outcome.out)["top1"], 0.75);
  }
  labels.back() = 9;
  write_text(folder_ / "t10k-labels-idx1-ubyte", labels);
  expect_error(run({folder_ / "."}), 1, "has label 9, but the model has 7 classes");
}

TEST_F(EvalCommand, PrintsForPeople) {
  add("data/class_a", "a.tif", noise(32, 32, 1));
  const Outcome outcome = weft_command({"eval", "--model", model_, folder_ / "data"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("top-1"), std::string::npos);
  EXPECT_NE(outcome.out.find("pictures/s"), std::string::npos);
}

TEST(BenchCommand, MeasuresEveryCombination) {
  const ScratchFolder folder;
  const std::string model = write_small_model(folder / "m.safetensors");
  const std::string csv = folder / "figures.csv";
  const Outcome outcome = weft_command({"bench", model, "--size", "32,16x64,64", "--batch", "1,2", "--threads", "1",
                                        "--min-time", "0", "--json", "--csv", csv});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  int rows = 0, fits = 0;
  for (const Json& json : json_lines(outcome.out)) {
    if (json.contains("exponent")) {
      ++fits;
      continue;
    }
    ++rows;
    EXPECT_GE(json["runs"].get<int>(), 5);
    EXPECT_GT(json["median_ms"].get<double>(), 0);
    EXPECT_LE(json["p10_ms"].get<double>(), json["median_ms"].get<double>());
    EXPECT_GE(json["p90_ms"].get<double>(), json["median_ms"].get<double>());
    EXPECT_GT(json["gflops"].get<double>(), 0);
    EXPECT_GT(json["working_bytes"].get<double>(), 0);
    EXPECT_GT(json["peak_resident_bytes"].get<double>(), json["working_bytes"].get<double>());
    EXPECT_EQ(json["threads"], 1);
    EXPECT_EQ(json["tokens"].get<int>(), json["height"].get<int>() * json["width"].get<int>() / 64);
  }
  EXPECT_EQ(rows, 6);
  EXPECT_EQ(fits, 0);  // 32x32 and 16x64 have as many tokens: only two sizes that differ
  EXPECT_EQ(lines_of(read_text(csv)).size(), 7U);
}

TEST(BenchCommand, FitsTheExponentFromThreeSizesOn) {
  const ScratchFolder folder;
  const std::string model = write_small_model(folder / "m.safetensors");
  const Outcome outcome =
      weft_command({"bench", model, "--size", "32,64,128", "--threads", "1", "--min-time", "0.05", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  std::vector<Json> json = json_lines(outcome.out);
  ASSERT_EQ(json.size(), 4U);
  EXPECT_EQ(json[3]["sizes"], 3);
  EXPECT_TRUE(json[3]["exponent"].is_number());
}

TEST(BenchCommand, PrintsForPeople) {
  const Outcome outcome = weft_command(
      {"bench", "vrwkv_tiny", "--set", "depth=1", "--set", "embed_dims=16", "--size", "64", "--min-time", "0"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("median ms"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("64x64"), std::string::npos) << outcome.out;
}

TEST(BenchCommand, AFailedCombinationDoesNotEndTheOthers) {
  const ScratchFolder folder;
  const std::string good = write_small_model(folder / "good.safetensors");
  write_text(folder / "bad.safetensors", "no checkpoint");
  const Outcome outcome =
      weft_command({"bench", folder / "bad.safetensors", good, "--size", "32", "--min-time", "0", "--json"});
  expect_error(outcome, 1, "bad.safetensors");
  std::vector<Json> json = json_lines(outcome.out);
  ASSERT_EQ(json.size(), 2U);
  EXPECT_TRUE(json[0].contains("error"));
  EXPECT_TRUE(json[1].contains("median_ms"));
}

}  // namespace
}  // namespace weft::testing
