#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "io/safetensors.h"
#include "io/testing/files.h"
#include "io/testing/torch_writer.h"

namespace weft {
namespace {

using testing::as_file;
using testing::refuses;
using namespace testing::pickled;
using Entries = std::vector<std::pair<std::string, std::string>>;

// A state_dict with these tensors, each one float whose value is `value`.
std::string state(const std::vector<std::string>& names, std::int64_t value = 0) {
  Entries entries;
  for (const std::string& name : names) {
    entries.emplace_back(name, tensor({.elements = 3, .offset = value, .sizes = {1}, .strides = {1}}));
  }
  return dict(entries);
}

Checkpoint read(const std::string& root, const std::string& section = "") {
  // The tensors are lent by these bytes; they live as long as the tests.
  static std::vector<std::unique_ptr<std::string>> files;
  files.push_back(std::make_unique<std::string>(testing::torch_file(root, {testing::bytes_of<float>({0, 1, 2})})));
  return read_checkpoint(as_file(*files.back(), "x.pth"), {.section = section});
}

float value_of(const Checkpoint& checkpoint, const std::string& name) {
  return checkpoint.tensors.at(name).data<float>()[0];
}

TEST(Checkpoint, ChoosesTheSectionByItsDocumentedOrder) {
  const std::string all = dict({{"state_dict_ema", state({"w"}, 2)},
                                {"state_dict", state({"w"}, 1)},
                                {"model", state({"w"}, 0)},
                                {"optimizer", dict({{"state", dict({})}})}});
  EXPECT_EQ(read(all).section, "model");
  EXPECT_EQ(read(all).sections, (std::vector<std::string>{"state_dict_ema", "state_dict", "model"}));
  EXPECT_EQ(value_of(read(all, "state_dict"), "w"), 1);
  EXPECT_EQ(value_of(read(all, "ema"), "w"), 2);
  EXPECT_EQ(read(all, "ema").section, "state_dict_ema");
  EXPECT_EQ(read(dict({{"epoch", "K\x01"}, {"state_dict", state({"w"})}})).section, "state_dict");
  const Checkpoint top = read(state({"w"}, 2));
  EXPECT_EQ(top.section, "");
  EXPECT_EQ(top.sections, (std::vector<std::string>{""}));
  EXPECT_EQ(value_of(top, "w"), 2);
  EXPECT_EQ(read(dict({{"ema", state({"w"})}}), "ema").section, "ema");
  EXPECT_TRUE(read("}").tensors.empty()) << "a model without parameters";
}

TEST(Checkpoint, ListsTheSectionsWhenNoneFits) {
  EXPECT_TRUE(refuses(
      [] {
        read(dict({{"model_ema", state({"w"})}, {"params", state({"w"})}}));
      },
      "choose a section of \"model_ema\", \"params\""));
  EXPECT_TRUE(refuses(
      [] {
        read(dict({{"model", state({"w"})}}), "ema");
      },
      "no section \"ema\" of tensors: expected one of \"model\""));
  EXPECT_TRUE(refuses([] { read(dict({{"epoch", "K\x01"}})); }, "it holds no tensors by name"));
}

TEST(Checkpoint, StripsDataParallelOnlyWhenEveryNameHasIt) {
  const Checkpoint all = read(state({"module.a", "module.b.c"}));
  EXPECT_TRUE(all.tensors.contains("a") && all.tensors.contains("b.c"));
  const Checkpoint some = read(state({"module.a", "b"}));
  EXPECT_TRUE(some.tensors.contains("module.a") && some.tensors.contains("b"));
}

TEST(Checkpoint, KeepsThePlainDataBesideTheTensors) {
  const std::string meta =
      dict({{"epoch", "K\x05"}, {"CLASSES", list({text("cat"), text("dog")})}, {"time", text("ü")}});
  const std::string namespace_ =
      call(global("argparse", "Namespace"), {}) + dict({{"lr", "K\x02"}, {"lr", "K\x03"}}) + "b";
  const Checkpoint file = read(dict({{"meta", meta},
                                     {"args", namespace_},
                                     {"ids", "}K\x07\x88s"},
                                     {"other", state({"w"})},
                                     {"dtype", global("torch", "float32")},
                                     {"model", state({"w"})}}));
  EXPECT_EQ(file.metadata.dump(),
            R"({"meta":{"epoch":5,"CLASSES":["cat","dog"],"time":"ü"},"args":{"lr":3},"ids":{"7":true},)"
            R"("other":{"w":"f32[1]"},"dtype":"torch.float32"})");
  EXPECT_EQ(
      read(dict({{"w", tensor({.elements = 3, .sizes = {3}, .strides = {1}})}, {"epoch", "K\x01"}})).metadata.dump(),
      R"({"epoch":1})");
}

TEST(Checkpoint, ReadsSafetensorsWithTheirMetadata) {
  testing::TemporaryDirectory dir;
  const float values[] = {1, 2};
  write_safetensors(dir / "weights", {{"module.w", Tensor::of(values, {2})}}, {{"k", "v"}});
  const Checkpoint file = read_checkpoint(dir / "weights");
  EXPECT_EQ(file.format, "safetensors");
  EXPECT_EQ(file.path, (dir / "weights").string());
  EXPECT_EQ(file.metadata.dump(), R"({"k":"v"})");
  EXPECT_EQ(file.tensors.at("w").data<float>()[1], 2);
  EXPECT_TRUE(refuses([&] { read_checkpoint(dir / "weights", {.section = "model"}); }, "no section \"model\""));
}

TEST(Checkpoint, ReadsTheGoldenFiles) {
  const std::filesystem::path golden = WEFT_SOURCE_DIR "/tests/golden";
  const Checkpoint plain = read_checkpoint(golden / "vrwkv-plain/weights.pth");
  EXPECT_EQ(plain.format, "PyTorch zip");
  EXPECT_EQ(plain.section, "state_dict");
  EXPECT_EQ(plain.metadata["meta"]["epoch"], 300);
  EXPECT_EQ(plain.metadata["meta"]["CLASSES"].size(), 7U);
  const Checkpoint intern = read_checkpoint(golden / "vrwkv-internimage-layout/weights.pth");
  EXPECT_EQ(intern.section, "model");
  EXPECT_EQ(intern.tensors.at("backbone.pos_embed").shape(), (Shape{1, 4, 16}));
  const Checkpoint bf16 = read_checkpoint(golden / "rwkv4-lm-bf16/weights.pth");
  EXPECT_EQ(bf16.section, "");
  EXPECT_EQ(bf16.tensors.at("emb.weight").type().str(), "bf16[50,24]");
  // Sums over all elements in double precision, computed with Python's own zipfile, pickle and struct.
  const auto sum = [](const Checkpoint& file) {
    double total = 0;
    for (const auto& [name, tensor] : file.tensors) {
      EXPECT_TRUE(all_finite(tensor)) << name;
      const Tensor values = tensor.to(DType::kF64);
      for (const double x : values.data<double>()) total += x;
    }
    return total;
  };
  constexpr double kTolerance = 1e-9;  // the order of the additions: 1e5 elements of size 1 in double precision
  EXPECT_NEAR(sum(plain), 225.75179144595313, kTolerance);
  EXPECT_NEAR(sum(intern), 1709.6252122658043, kTolerance);
  EXPECT_NEAR(sum(bf16), 194.69013196229935, kTolerance);
}

TEST(Checkpoint, ReadsTheTrainedModel) {
  const std::filesystem::path path = WEFT_TEST_DATA "/models/vrwkv_micro_cifar10.pth";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "the trained model is not beside the source tree";
  const Checkpoint file = read_checkpoint(path);
  EXPECT_EQ(file.section, "state_dict");
  EXPECT_EQ(file.metadata["meta"]["CLASSES"].size(), 10U);
  std::int64_t parameters = 0;
  for (const auto& [name, tensor] : file.tensors) parameters += tensor.elements();
  EXPECT_EQ(parameters, 737'386);
}

TEST(AllFinite, FindsOneOddValueInEveryElementType) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16}) {
    for (const float odd : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
      std::vector<float> values(37, -65504.0F);
      EXPECT_TRUE(all_finite(Tensor::of(values, {37}).to(dtype)));
      values[36] = odd;
      EXPECT_FALSE(all_finite(Tensor::of(values, {37}).to(dtype))) << name_of(dtype);
    }
  }
  EXPECT_TRUE(all_finite(Tensor(DType::kF32, {0})));
  EXPECT_TRUE(all_finite(Tensor::zeros({DType::kI64, {3}})));
}

}  // namespace
}  // namespace weft
