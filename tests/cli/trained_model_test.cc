// The model that comes with weft: found by default, and as good as it was when it was trained.
#include <cstdlib>
#include <filesystem>

#include "api/model_data.h"
#include "tests/cli/command.h"

namespace weft::testing {
namespace {

const std::filesystem::path kSource = WEFT_SOURCE_DIR;
const std::filesystem::path kData = WEFT_TEST_DATA;

TEST(TrainedModel, IsTheDefault) {
  Json json = only_json(weft_command({"classify", "--json", (kSource / "demo/pictures/ship.png").string()}).out);
  EXPECT_EQ(json["predictions"][0]["label"], "ship");
}

// Top-1 and top-5 on the 10,000 test pictures of CIFAR-10; false, and the test is skipped, where these are absent.
bool judge(std::vector<std::string> model, Json& judged) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;  // takes long
#endif
  const std::filesystem::path packed = kData / "data/cifar10/cifar10_test.bin.xz";
  if (!std::filesystem::exists(packed)) return false;
  const ScratchFolder folder;
  const std::string data = folder / "test.bin";
  const std::string unpack = fmt::format("xz -dc '{}' > '{}'", packed.string(), data);
  if (std::system(unpack.c_str()) != 0) return false;
  std::vector<std::string> arguments = {"eval", "--json", data};
  arguments.insert(arguments.end(), model.begin(), model.end());
  judged = only_json(weft_command(arguments).out);
  return true;
}
constexpr const char* kNoPictures = "needs CIFAR-10 beside the repository and xz, and a build without sanitizers";

// Another processor sums in another order, which may turn a few pictures that are on the edge: five of the 10,000.
constexpr double kOnTheEdge = 5.5e-4;

TEST(TrainedModel, IsRightAsOftenAsItSays) {
  Json judged;
  if (!judge({}, judged)) GTEST_SKIP() << kNoPictures;
  EXPECT_EQ(judged["pictures"], 10000);
  const Model model = Model::load(kSource / "models/vrwkv_cifar10.safetensors");
  const Json metrics = model.data().provenance.at("metrics");
  EXPECT_NEAR(judged["top1"].get<double>(), metrics.at("top1").get<double>(), kOnTheEdge);
  EXPECT_NEAR(judged["top5"].get<double>(), metrics.at("top5").get<double>(), kOnTheEdge);
  EXPECT_GT(judged["top1"], 0.87);
}

TEST(TrainedModel, OfPyTorchIsRightAsOftenAsItWasThere) {
  const std::filesystem::path model = kData / "models/vrwkv_micro_cifar10.pth";
  Json judged;
  if (!std::filesystem::exists(model) || !judge({"--model", model.string()}, judged)) GTEST_SKIP() << kNoPictures;
  EXPECT_NEAR(judged["top1"].get<double>(), 0.8226, kOnTheEdge);
  EXPECT_NEAR(judged["top5"].get<double>(), 0.9908, kOnTheEdge);
}

}  // namespace
}  // namespace weft::testing
