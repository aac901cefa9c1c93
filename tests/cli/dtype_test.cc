// --dtype: what products multiply, wherever a model is run.
#include <cmath>
#include <filesystem>

#include "kernel/testing/product_types.h"
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
  for (const std::string& dtype : dtype_names(product_types())) {
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
  if (fewer_bits().empty()) GTEST_SKIP() << kNoFewerBits;
  const auto pooled = [&](const std::string& dtype) {
    return only_json(run("features", dtype, {"--json", picture_}).out)["pooled"].get<std::vector<double>>();
  };
  const std::vector<double> exact = pooled("f32");
  for (const std::string& dtype : dtype_names(fewer_bits())) {
    const std::vector<double> rounded = pooled(dtype);
    double noise = 0, signal = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      noise += (rounded[i] - exact[i]) * (rounded[i] - exact[i]);
      signal += exact[i] * exact[i];
    }
    // 15 products of two rounded operands each, in quadrature: 1.2 % in bf16, 3.6 % in int8, and a factor of 2
    // (src/verify/rounding.h); rounding what is stored between stages has room in that. f32 would differ by some 1e-7.
    EXPECT_LT(std::sqrt(noise / signal), dtype == "bf16" ? 0.024 : 0.072);
    EXPECT_GT(std::sqrt(noise / signal), 1e-5);
  }
}

TEST_F(DTypeOption, ComparesLayerByLayer) {
  if (fewer_bits().empty()) GTEST_SKIP() << kNoFewerBits;
  for (const std::string& dtype : dtype_names(fewer_bits())) {
    const Json json = only_json(run("compare", dtype, {"--json", picture_}).out);
    EXPECT_EQ(json["dtype"], dtype);
    EXPECT_EQ(json["pictures"], 1);
    std::vector<std::string> stages;
    for (const Json& stage : json["stages"]) {
      stages.push_back(stage["stage"]);
      // 16 products of two rounded operands, in quadrature, and a factor of 2 (src/verify/rounding.h).
      const double noise = 2 * std::sqrt(2.0 * 16) * (dtype == "bf16" ? 0x1p-8 / std::sqrt(3.0) : 0.0083);
      EXPECT_GT(stage["snr_db"].get<double>(), -20 * std::log10(noise)) << stages.back();
      EXPECT_LT(stage["snr_db"].get<double>(), 100) << "that is f32's own noise: 2^-24 is 144 dB";
      EXPECT_LT(stage["error"].get<double>(), noise);
    }
    EXPECT_EQ(stages, (std::vector<std::string>{"layer 0", "layer 1", "pooled", "logits"}));
    EXPECT_TRUE(json["stages"][0]["lost_db"].is_null());
    EXPECT_NEAR(json["stages"][1]["lost_db"].get<double>(),
                json["stages"][0]["snr_db"].get<double>() - json["stages"][1]["snr_db"].get<double>(), 1e-9);
  }
}

TEST_F(DTypeOption, ComparesInInt8UnlessToldOtherwise) {
  if (!onednn::multiplies_natively(DType::kI8)) GTEST_SKIP() << "this CPU does not multiply int8";
  const std::string text = weft_command({"compare", "--model", model_, picture_}).out;
  EXPECT_NE(text.find("in int8 against f32"), std::string::npos) << text;
  EXPECT_NE(text.find("same top-1"), std::string::npos) << text;
}

TEST_F(DTypeOption, ComparesF32WithItselfWithoutADifference) {
  const Json json = only_json(run("compare", "f32", {"--json", picture_, picture_}).out);
  EXPECT_EQ(json["pictures"], 2);
  EXPECT_EQ(json["same_top1"], 2);
  for (const Json& stage : json["stages"]) {
    EXPECT_TRUE(stage["snr_db"].is_null());
    EXPECT_EQ(stage["error"], 0.0);
  }
}

TEST_F(DTypeOption, ComparisonsTellBadPicturesAndGoOn) {
  write_text(folder_ / "bad.jpg", "no picture");
  const Outcome some = run("compare", "f32", {"--json", folder_ / "bad.jpg", picture_});
  expect_error(some, 1, "bad.jpg");
  EXPECT_EQ(only_json(some.out)["pictures"], 1);
  const Outcome none = run("compare", "f32", {"--json", folder_ / "bad.jpg"});
  expect_error(none, 1, "bad.jpg");
  EXPECT_EQ(none.out, "");
}

TEST_F(DTypeOption, AutoIsWhatTheLibraryFindsBest) {
  const std::string best = best_dtype() == DType::kBF16 ? "bf16" : "f32";
  EXPECT_EQ(only_json(run("classify", "auto", {"--json", picture_}).out)["dtype"], best);
  EXPECT_EQ(only_json(weft_command({"verify", "--json", "--dtype", "auto", kGolden + "/vit-cls"}).out)["dtype"], best);
}

TEST_F(DTypeOption, IsCheckedBeforeAnythingIsRead) {
  for (const char* command : {"classify", "features", "eval", "compare"}) {
    expect_error(weft_command({command, "--model", "absent.pth", "--dtype", "f64", "x"}), 2, "--dtype");
    expect_error(weft_command({command, "--model", "absent.pth", "--dtype", "f32,bf16", "x"}), 2, "--dtype");
  }
  expect_error(weft_command({"verify", "--dtype", "i8", "x"}), 2, "--dtype");
  expect_error(weft_command({"verify", "--engine", "reference", "--dtype", "int8", "x"}), 2, "reference");
}

// As on a CPU without VNNI: oneDNN takes no instructions beyond those that this variable names.
TEST_F(DTypeOption, Int8IsRefusedWhereItWouldOverflow) {
  const RunOptions old_cpu{.environment = {{"DNNL_MAX_CPU_ISA", "AVX2"}}};
  const std::string golden = kGolden + "/vrwkv-plain";
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"classify", "--model", model_, picture_},
                                                    {"features", "--model", model_, picture_},
                                                    {"compare", "--model", model_, picture_},
                                                    {"eval", "--model", model_, folder_ / "data"},
                                                    {"bench", model_, "--size", "32", "--min-time", "0"},
                                                    {"verify", golden}}) {
    SCOPED_TRACE(arguments[0]);
    std::vector<std::string> with_dtype = arguments;
    with_dtype.insert(with_dtype.end(), {"--dtype", "int8"});
    expect_error(weft_command(with_dtype, old_cpu), 1, "int8 products need a CPU with VNNI");
  }
  EXPECT_EQ(
      only_json(
          weft_command({"classify", "--model", model_, "--dtype", "auto", "--json", picture_}, old_cpu).out)["dtype"],
      "f32");
}

TEST_F(DTypeOption, CasesStateTheToleranceOfTheirRounding) {
  const auto tolerance = [](const std::string& dtype) {
    const Outcome outcome = weft_command({"verify", "--json", "--dtype", dtype, kGolden + "/vrwkv-plain"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return only_json(outcome.out)["worst"]["tolerance"].get<double>();
  };
  EXPECT_EQ(tolerance("f32"), 1e-5);
  if (fewer_bits().empty()) GTEST_SKIP() << kNoFewerBits;
  // 3 layers of 7 products, the patch embedding and the head: 23 products of two operands that are off by 2^-8/√3
  // (bf16). Their results are rounded once more, and those of 3 mixers and 8 norms: two in each layer, ln0 and the
  // last.
  const double bf16 = 1e-5 + 2 * std::sqrt((3 * 23 + 3 + 8) * 0x1p-16 / 3);
  for (const DType dtype : fewer_bits()) {
    if (dtype == DType::kBF16) {
      EXPECT_NEAR(tolerance("bf16"), bf16, 1e-9);
    } else {
      EXPECT_GT(tolerance("int8"), bf16);
    }
  }
}

TEST_F(DTypeOption, ComesWithABoundOnMemory) {
  const auto classify = [&](const std::string& limit) {
    return run("classify", "f32", {"--max-memory", limit, picture_});
  };
  EXPECT_EQ(classify("4G").code, 0);
  const Outcome refused = classify("1M");  // less than the process itself has
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.err.find("the limit is 1.0 MiB"), std::string::npos) << refused.err;
  for (const std::string wrong : {"0", "-1G", "5T", "G", "1e30", "600 M", "nan"}) {
    const Outcome usage = classify(wrong);
    EXPECT_EQ(usage.code, 2) << wrong;
    EXPECT_NE(usage.err.find("--max-memory"), std::string::npos) << usage.err;
  }
}

}  // namespace
}  // namespace weft::testing
