// weft connect: the table, JSON, pictures, what it refuses.
#include "io/npy.h"
#include "tests/cli/command.h"

namespace weft::testing {
namespace {

class ConnectCommand : public ::testing::Test {
 protected:
  Outcome run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "connect");
    return weft_command(std::move(arguments));
  }

  ScratchFolder folder_;
  std::string model_ = write_small_model(folder_ / "model.safetensors");  // a grid of 4 × 4
  std::string picture_ = folder_ / "a.tif";

  ConnectCommand() { write_picture(picture_, noise(40, 50, 1)); }
};

TEST_F(ConnectCommand, PrintsTheRelationTable) {
  const Outcome outcome = run({model_, picture_});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 5U) << outcome.out;  // heading, gap, titles, two kinds
  EXPECT_NE(lines[0].find("at 32x32"), std::string::npos);
  EXPECT_NE(outcome.out.find("q_shift × 4 "), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("in 3x3"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("bi_wkv × 2 "), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("16 of 16, halves 1 "), std::string::npos) << outcome.out;
}

TEST_F(ConnectCommand, JsonTellsEveryLayer) {
  const Json json = only_json(run({model_, picture_, "--json", "--size", "16x48"}).out);
  EXPECT_EQ(json["input"], Json({16, 48}));
  ASSERT_EQ(json["layers"].size(), 6U);
  int mixers = 0;
  for (const Json& layer : json["layers"]) {
    EXPECT_EQ(layer["input_grid"], Json({2, 6}));
    EXPECT_FALSE(layer["channels_connected"]);
    EXPECT_EQ(layer["dynamic"], layer["kind"] == "bi_wkv");
    EXPECT_EQ(layer["sparse"], layer["kind"] == "q_shift");
    EXPECT_EQ(layer["shared_by_positions"], layer["kind"] == "q_shift");
    if (layer["kind"] == "bi_wkv") {
      ++mixers;
      EXPECT_EQ(layer["distinct"], 24);
      EXPECT_EQ(layer["half_rank"], 1);
    }
  }
  EXPECT_EQ(mixers, 2);
}

TEST_F(ConnectCommand, WritesPicturesAndMatrices) {
  const std::string out = folder_ / "out";
  const Outcome outcome =
      run({model_, picture_, "--layer", "-1", "--out", out, "--channels", "3,20", "--position", "31,0"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::string stem = out + "/backbone-layers-1-att-bi_wkv";
  const Tensor matrices = read_npy(stem + ".npy");
  ASSERT_EQ(matrices.type().str(), "f32[2,16,16]");
  const auto weights = matrices.data<float>();
  for (std::size_t row = 0; row < 32; ++row) {  // means of the values: each row's weights add up to 1
    double sum = 0;
    for (std::size_t i = 0; i < 16; ++i) sum += double{weights[row * 16 + i]};
    EXPECT_NEAR(sum, 1, 1e-5) << row;  // of 16 weights, each good to 1e-5 of itself
  }
  const Image matrix = decode_image(stem + "-matrix.png");
  EXPECT_EQ(matrix.height, 224);
  EXPECT_EQ(matrix.width, 2 * 224 + 6);
  EXPECT_EQ(decode_image(stem + "-row.png").height, 224);
  EXPECT_TRUE(std::filesystem::exists(out + "/backbone-layers-1-ffn-q_shift-matrix.png"));
  const bool field = std::filesystem::exists(out + "/receptive_field.png");  // where libtorch is there
  EXPECT_NE(field, outcome.err.find("no receptive field") != std::string::npos) << outcome.err;
}

TEST_F(ConnectCommand, Refuses) {
  expect_error(run({model_}), 2, "IMAGE");
  expect_error(run({"no_such_preset", picture_}), 1, "no_such_preset");
  expect_error(run({model_, folder_ / "missing.png"}), 1, "missing.png");
  expect_error(run({model_, picture_, "--layer", "2"}), 1, "no layer 2");
  expect_error(run({model_, picture_, "--position", "32,0"}), 2, "--position");
  expect_error(run({model_, picture_, "--channels", "24"}), 1, "no channel 24");
  expect_error(run({model_, picture_, "--max-memory", "1K"}), 1, "--max-memory");
}

}  // namespace
}  // namespace weft::testing
