// weft export.
#include <filesystem>

#include "tests/cli/command.h"

namespace weft::testing {
namespace {

TEST(ExportCommand, RefusesInOneLineAndWritesNothing) {
  const ScratchFolder folder;
  const std::string model = write_small_model(folder / "m.safetensors");
  const std::string out = folder / "m.onnx";
  // Whether or not this build has libonnx.
  expect_error(weft_command({"export", model, out}), 1, "[onnx]");
  EXPECT_FALSE(std::filesystem::exists(out));
  expect_error(weft_command({"export", model, out, "--layers", "7"}), 1, "no layer 7");
  expect_error(weft_command({"export", folder / "gone.safetensors", out}), 1, "no such file");
  write_text(out, "precious");
  expect_error(weft_command({"export", model, out}), 1, "--force");
  EXPECT_EQ(read_text(out), "precious");
}

TEST(ExportCommand, WritesAModelWithWhatThereIsToKnowAboutIt) {
  const ScratchFolder folder;
  const std::string out = folder / "vit.onnx";
  const std::vector<std::string> small = {"export",
                                          "deit_tiny_patch16_224",
                                          out,
                                          "--set",
                                          "depth=2",
                                          "--set",
                                          "embed_dim=24",
                                          "--size",
                                          "64x48",
                                          "--batch",
                                          "2",
                                          "--json"};
  const Outcome outcome = weft_command(small);
  if (outcome.err.find("libonnx-dev") != std::string::npos) GTEST_SKIP() << "this build has no libonnx";
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  Json json = only_json(outcome.out);
  EXPECT_EQ(json["bytes"].get<std::size_t>(), std::filesystem::file_size(out));
  EXPECT_EQ(json["inputs"], (Json{{"image", {2, 3, 64, 48}}}));
  EXPECT_EQ(json["outputs"], (Json{{"logits", {2, 1000}}}));
  const std::string bytes = read_text(out);
  for (const char* part : {"weft.preprocess", "\"embed_dim\":24", "LayerNormalization", "Softmax"}) {
    EXPECT_NE(bytes.find(part), std::string::npos) << part;
  }
  expect_error(weft_command(small), 1, "--force");
  std::vector<std::string> more = small;
  more.insert(more.end(), {"--force", "--layers", "0,-1"});
  json = only_json(weft_command(more).out);
  EXPECT_EQ(json["outputs"],
            (Json{{"map0", {2, 24, 4, 3}}, {"map1", {2, 24, 4, 3}}, {"pooled", {2, 24}}, {"logits", {2, 1000}}}));
  const Outcome people =
      weft_command({"export", "deit_tiny_patch16_224", folder / "p.onnx", "--set", "depth=1", "--size", "32"});
  EXPECT_NE(people.out.find("output  logits [1,1000]"), std::string::npos) << people.out << people.err;
}

}  // namespace
}  // namespace weft::testing
