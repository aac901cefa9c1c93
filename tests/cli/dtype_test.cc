// --dtype: what products multiply, wherever a model is run.
#include <cmath>
#include <filesystem>

#include "tests/cli/command.h"

namespace weft::testing {
namespace {

const std::string kGolden = (std::filesystem::path(WEFT_SOURCE_DIR) / "tests/golden").string();

class DTypeOption : public ::testing::Test {
 protected:
  Outcome run(const std::string& command, const std::string& dtype, std::vector<std::string> more) {
    more.insert(more.begin(), {command, "--model", model_, "--dtype", dtype});
    return weft_command(std::move(more));
  }

  ScratchFolder folder_;
  std::string model_ = write_small_model(folder_ / "model.safetensors");
  std::string picture_ = write_picture(folder_ / "data/class_a/a.tif", noise(32, 32, 1));

 private:
  std::string write_picture(const std::string& path, const Image& image) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    testing::write_picture(path, image);
    return path;
  }
};

TEST_F(DTypeOption, IsToldWithEveryResult) {
  for (const std::string dtype : {"f32", "bf16", "int8"}) {
    EXPECT_EQ(only_json(run("classify", dtype, {"--json", picture_}).out)["dtype"], dtype);
    EXPECT_EQ(only_json(run("features", dtype, {"--json", picture_}).out)["dtype"], dtype);
    const std::string out = folder_ / (dtype + ".safetensors");
    EXPECT_EQ(only_json(run("features", dtype, {"--json", "--out", out, picture_}).out)["dtype"], dtype);
    EXPECT_EQ(only_json(run("eval", dtype, {"--json", folder_ / "data"}).out)["dtype"], dtype);
    EXPECT_EQ(only_json(weft_command({"verify", "--json", "--dtype", dtype, kGolden + "/vrwkv-plain"}).out)["dtype"],
              dtype);
    const bool named = dtype != "f32";
    EXPECT_EQ(run("classify", dtype, {picture_}).out.find("a.tif (" + dtype + ")\n") != std::string::npos, named);
    EXPECT_EQ(run("features", dtype, {picture_}).out.find("a.tif (" + dtype + ")\n") != std::string::npos, named);
    EXPECT_NE(run("eval", dtype, {folder_ / "data"}).out.find("threads, " + dtype), std::string::npos);
  }
}

TEST_F(DTypeOption, RoundsTheProducts) {
  const auto pooled = [&](const std::string& dtype) {
    return only_json(run("features", dtype, {"--json", picture_}).out)["pooled"].get<std::vector<double>>();
  };
  const std::vector<double> exact = pooled("f32");
  for (const std::string dtype : {"bf16", "int8"}) {
    const std::vector<double> rounded = pooled(dtype);
    double noise = 0, signal = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      noise += (rounded[i] - exact[i]) * (rounded[i] - exact[i]);
      signal += exact[i] * exact[i];
    }
    // 15 products of two rounded operands each, in quadrature: 1.2 % in bf16, 3.6 % in int8, and a factor of 2
    // (src/verify/rounding.h). f32 would differ by some 1e-7.
    EXPECT_LT(std::sqrt(noise / signal), dtype == "bf16" ? 0.024 : 0.072);
    EXPECT_GT(std::sqrt(noise / signal), 1e-5);
  }
}

TEST_F(DTypeOption, AutoIsWhatTheLibraryFindsBest) {
  const std::string best = best_dtype() == DType::kBF16 ? "bf16" : "f32";
  EXPECT_EQ(only_json(run("classify", "auto", {"--json", picture_}).out)["dtype"], best);
  EXPECT_EQ(only_json(weft_command({"verify", "--json", "--dtype", "auto", kGolden + "/vit-cls"}).out)["dtype"], best);
}

TEST_F(DTypeOption, IsCheckedBeforeAnythingIsRead) {
  for (const char* command : {"classify", "features", "eval"}) {
    expect_error(weft_command({command, "--model", "absent.pth", "--dtype", "f64", "x"}), 2, "--dtype");
    expect_error(weft_command({command, "--model", "absent.pth", "--dtype", "f32,bf16", "x"}), 2, "--dtype");
  }
  expect_error(weft_command({"verify", "--dtype", "i8", "x"}), 2, "--dtype");
  expect_error(weft_command({"verify", "--engine", "reference", "--dtype", "int8", "x"}), 2, "reference");
}

TEST_F(DTypeOption, CasesStateTheToleranceOfTheirRounding) {
  const auto tolerance = [](const std::string& dtype) {
    const Outcome outcome = weft_command({"verify", "--json", "--dtype", dtype, kGolden + "/vrwkv-plain"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return only_json(outcome.out)["worst"]["tolerance"].get<double>();
  };
  EXPECT_EQ(tolerance("f32"), 1e-5);
  // 3 layers of 7 products, the patch embedding and the head: 23 products of operands off by 2^-8/√3 (bf16).
  EXPECT_NEAR(tolerance("bf16"), 1e-5 + 2 * std::sqrt(2 * 23 * 0x1p-16 / 3), 1e-9);
  EXPECT_GT(tolerance("int8"), tolerance("bf16"));
}

}  // namespace
}  // namespace weft::testing
