// weft verify: engines, gradients, what cannot be had.
#include "tests/cli/command.h"

namespace weft::testing {
namespace {

const std::string kGolden = WEFT_SOURCE_DIR "/tests/golden";

TEST(CommandVerify, RunsReferenceCasesByLibtorch) {
  if (!WEFT_HAS_TORCH) GTEST_SKIP() << "this build has no libtorch";
  for (const char* name : {"/vrwkv-pad", "/vit-cls"}) {
    const Json result = only_json(
        weft_command({"verify", "--engine", "torch", "--grad", "--threads", "1", "--json", kGolden + name}).out);
    EXPECT_EQ(result["pass"], true);
    EXPECT_EQ(result["engine"], "torch");
    EXPECT_EQ(result["dtype"], "f32");
    int gradients = 0;
    for (const Json& check : result["checks"]) {
      gradients += check["name"].get<std::string>().starts_with("gradient of ");
    }
    EXPECT_GT(gradients, 20);
  }
}

TEST(CommandVerify, SaysHowToGetLibtorch) {
  if (WEFT_HAS_TORCH) GTEST_SKIP() << "this build has libtorch";
  expect_error(weft_command({"verify", "--engine", "torch", kGolden + "/vit-cls"}), 1, "install libtorch-dev");
}

TEST(CommandVerify, RefusesWhatAnEngineCannotDo) {
  expect_error(weft_command({"verify", "--grad", kGolden + "/vit-cls"}), 2, "--grad needs --engine torch");
  expect_error(weft_command({"verify", "--grad", "--engine", "reference", "x"}), 2, "the reference engine");
  expect_error(weft_command({"verify", "--device", "cuda", "x"}), 2, "--device cuda needs --engine torch");
  expect_error(weft_command({"verify", "--engine", "torch", "--dtype", "bf16", "x"}), 2, "--dtype");
  expect_error(weft_command({"verify", "--engine", "tpu", "x"}), 2, "--engine");
}

}  // namespace
}  // namespace weft::testing
