// The model that comes with weft: found by default, and as good as it was when it was trained.
#include <cstdlib>
#include <filesystem>

#include "tests/cli/command.h"

namespace weft::testing {
namespace {

const std::filesystem::path kSource = WEFT_SOURCE_DIR;

TEST(TrainedModel, IsTheDefault) {
  Json json = only_json(weft_command({"classify", "--json", (kSource / "demo/pictures/ship.png").string()}).out);
  EXPECT_EQ(json["predictions"][0]["label"], "ship");
}

TEST(TrainedModel, IsRightAsOftenAsItWasInPyTorch) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "10,000 pictures take long under sanitizers";
#endif
  const std::filesystem::path packed = std::filesystem::path(WEFT_TEST_DATA) / "data/cifar10/cifar10_test.bin.xz";
  if (!std::filesystem::exists(packed)) GTEST_SKIP() << "no CIFAR-10 at " << packed;
  const ScratchFolder folder;
  const std::string data = folder / "test.bin";
  const std::string unpack = fmt::format("xz -dc '{}' > '{}'", packed.string(), data);
  if (std::system(unpack.c_str()) != 0) GTEST_SKIP() << "xz cannot unpack " << packed;
  Json json = only_json(weft_command({"eval", "--json", data}).out);
  EXPECT_EQ(json["pictures"], 10000);
  // PyTorch in f32 counts 82.26 % and 99.08 %. Another order of summation may turn a few pictures that are on the edge:
  // five of the 10,000.
  EXPECT_NEAR(json["top1"].get<double>(), 0.8226, 5.5e-4);
  EXPECT_NEAR(json["top5"].get<double>(), 0.9908, 5.5e-4);
}

}  // namespace
}  // namespace weft::testing
