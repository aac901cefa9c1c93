// Files made to break their reader, by way of the command: one line, exit code 1, no code run, nothing left behind.
#include <limits>

#include "api/model_data.h"
#include "api/model_file.h"
#include "io/testing/hostile_files.h"
#include "tests/cli/command.h"

namespace weft::testing {
namespace {

TEST(Hostile, EveryFileGetsOneClearLine) {
  const ScratchFolder folder;
  const ScratchFolder others;
  const std::string model = write_small_model(others / "model.safetensors");
  const std::string picture = write_picture(others / "picture.tiff", noise(32, 32, 1));
  for (const HostileFile& file : write_hostile_files(folder.path())) {
    SCOPED_TRACE(file.path.filename());
    if (file.kind == HostileFile::Kind::kArray) continue;  // no command reads a lone array
    const bool weights = file.kind == HostileFile::Kind::kWeights;
    const std::string path = file.path.string();
    expect_error(weights ? weft_command({"classify", "--model", path, picture})
                         : weft_command({"classify", "--model", model, path}),
                 1, file.reason);
    if (weights) expect_error(weft_command({"convert", path, others / "out.safetensors"}), 1, file.reason);
    EXPECT_FALSE(std::filesystem::exists(others / "out.safetensors"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "code-was-run"));
}

TEST(Hostile, WeightsThatAreNotFiniteAreRefused) {
  const ScratchFolder folder;
  ModelData data = small_model().data();
  Tensor weight = data.weights.at("backbone.ln1.weight").clone();
  weight.mutable_data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  data.weights.insert_or_assign("backbone.ln1.weight", weight);
  write_model_file(folder / "nan.safetensors", data);
  const std::string picture = write_picture(folder / "picture.tiff", noise(32, 32, 1));
  expect_error(weft_command({"classify", "--model", folder / "nan.safetensors", picture}), 1,
               "NaN or infinite values in: backbone.ln1.weight");
}

TEST(Hostile, AReferenceCaseMayHoldAnything) {
  const ScratchFolder folder;
  for (const char* meta :
       {"", "[]", "{}", "null", R"({"system": 7})", R"({"system": "vision_rwkv", "config": 3})",
        R"({"system": "vision_rwkv", "config": {"depth": -1}})", R"({"system": "vision_rwkv", "config": {"depht": 1}})",
        R"({"system": "vrwkv", "config": {"model": []}})",
        R"({"system": "vrwkv", "config": {"model": {"backbone": 1}}})", R"({"system": "bi_wkv-op", "cases": 5})",
        R"({"system": "bi_wkv-op", "cases": []})",
        R"({"system": "bi_wkv-op", "cases": [{"files": {"k": "../k.npy"}}]})",
        R"({"system": "pillow-resize", "cases": [{"out": 1}]})", R"({"system": "unheard-of", "config": {}})"}) {
    SCOPED_TRACE(meta);
    write_text(folder.path() / "meta.json", meta);
    expect_error(weft_command({"verify", folder.path().string()}), 1, folder.path().string());
  }
  expect_error(weft_command({"verify", folder / "absent"}), 1, "meta.json");
}

}  // namespace
}  // namespace weft::testing
