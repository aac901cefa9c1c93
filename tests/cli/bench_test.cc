// weft bench: types, figures, other engines.
#include <algorithm>
#include <filesystem>
#include <limits>

#include "kernel/testing/product_types.h"
#include "tests/cli/command.h"

namespace weft::testing {
namespace {

namespace fs = std::filesystem;

TEST(BenchTypes, AreMeasuredAgainstTheMachine) {
  const ScratchFolder folder;
  const std::string model = write_small_model(folder / "m.safetensors");
  const std::vector<std::string> types = dtype_names(product_types());
  const Outcome outcome = weft_command({"bench", model, "--size", "32", "--threads", "1", "--dtype",
                                        fmt::format("{}", fmt::join(types, ",")), "--min-time", "0", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  std::vector<Json> rows = json_lines(outcome.out);
  ASSERT_EQ(rows.size(), types.size());
  for (std::size_t i = 0; i < types.size(); ++i) {
    EXPECT_EQ(rows[i]["dtype"], types[i]);
    EXPECT_EQ(rows[i]["engine"], "weft");
    EXPECT_FALSE(rows[i].contains("vs"));
    ASSERT_TRUE(rows[i].contains("share"));
    EXPECT_GT(rows[i]["machine_gflops"].get<double>(), 1);
    EXPECT_NEAR(rows[i]["share"].get<double>(),
                rows[i]["gflops"].get<double>() / rows[i]["machine_gflops"].get<double>(), 1e-9);
  }
  expect_error(weft_command({"bench", model, "--dtype", "f64"}), 2, "--dtype");
  expect_error(weft_command({"bench", model, "--dtype", "f32,"}), 2, "--dtype");
}

TEST(BenchProfile, TellsWhatARunIsSpentOn) {
  const ScratchFolder folder;
  const std::string model = write_small_model(folder / "m.safetensors");
  const std::vector<std::string> command = {"bench", model, "--size", "32", "--min-time", "0", "--profile"};
  std::vector<std::string> with_json = command;
  with_json.emplace_back("--json");
  const Outcome outcome = weft_command(with_json);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const Json row = only_json(outcome.out);
  ASSERT_TRUE(row.contains("profile")) << outcome.out;
  std::int64_t macs = 0;
  double last = std::numeric_limits<double>::infinity();
  for (const Json& sum : row["profile"]) {
    macs += sum["macs"].get<std::int64_t>();
    EXPECT_LE(sum["ms"].get<double>(), last);  // the longest first
    last = sum["ms"].get<double>();
  }
  EXPECT_EQ(macs, row["macs"].get<std::int64_t>());
  EXPECT_NE(weft_command(command).out.find("\n  linear "), std::string::npos);
}

TEST(BenchFigures, CsvHasTheSameColumnsInEveryRow) {
  const ScratchFolder folder;
  const std::string model = write_small_model(folder / "a,b.safetensors");
  const std::string csv = folder / "f.csv";
  const Outcome outcome = weft_command({"bench", model, "--size", "32,64", "--min-time", "0", "--csv", csv});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(read_text(csv));
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_TRUE(lines[0].starts_with("model,engine,height,width,")) << lines[0];
  const auto commas = [](const std::string& line) { return std::ranges::count(line, ','); };
  for (std::size_t i = 1; i < lines.size(); ++i) {
    EXPECT_TRUE(lines[i].starts_with("\"")) << lines[i];  // the name has a comma of its own
    EXPECT_EQ(commas(lines[i]), commas(lines[0]) + 1) << lines[i];
  }
  expect_error(weft_command({"bench", model, "--csv", folder / "gone/f.csv"}), 1, "cannot be written");
}

// Whether every element that begins ends, in order, and text and attributes are escaped.
::testing::AssertionResult well_formed(const std::string& xml) {
  std::vector<std::string> open;
  for (std::size_t at = 0; at < xml.size(); ++at) {
    if (xml[at] == '&') {
      const std::string_view rest = std::string_view(xml).substr(at);
      const std::string_view known[] = {"&amp;", "&lt;", "&gt;", "&quot;"};
      if (std::ranges::none_of(known, [&](std::string_view entity) { return rest.starts_with(entity); })) {
        return ::testing::AssertionFailure() << "a bare & at " << rest.substr(0, 40);
      }
    }
    if (xml[at] != '<') continue;
    const std::size_t end = xml.find('>', at);
    if (end == std::string::npos) return ::testing::AssertionFailure() << "a tag without end";
    const std::string tag = xml.substr(at + 1, end - at - 1);
    if (std::ranges::count(tag, '"') % 2 != 0) return ::testing::AssertionFailure() << "odd quotes in " << tag;
    if (tag.starts_with("/")) {
      if (open.empty() || open.back() != tag.substr(1)) return ::testing::AssertionFailure() << "unexpected " << tag;
      open.pop_back();
    } else if (!tag.ends_with("/")) {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end;
  }
  if (!open.empty()) return ::testing::AssertionFailure() << open.back() << " has no end";
  return ::testing::AssertionSuccess();
}

std::size_t count_of(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(BenchFigures, SvgHasALineForEveryCurveInBothPanels) {
  const ScratchFolder folder;
  const std::string model = write_small_model(folder / "<a>&\"b\".safetensors");
  const std::string svg = folder / "f.svg";
  const std::vector<std::string> types = dtype_names(product_types());
  const Outcome outcome = weft_command({"bench", model, "--size", "32,64,128", "--threads", "1,2", "--dtype",
                                        fmt::format("{}", fmt::join(types, ",")), "--min-time", "0", "--svg", svg});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::string xml = read_text(svg);
  EXPECT_TRUE(xml.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_TRUE(well_formed(xml)) << xml;
  const std::size_t curves = 2 * types.size();
  EXPECT_EQ(count_of(xml, "<circle "), curves * 3 * 2);         // sizes, panels
  EXPECT_EQ(count_of(xml, "<polyline "), curves * 2 + curves);  // and the legend
  EXPECT_EQ(count_of(xml, "memory ~ T^"), curves);
  const std::string last = fmt::format("&lt;a&gt;&amp;&quot;b&quot;.safetensors, {}, batch 1, 2 threads", types.back());
  EXPECT_NE(xml.find(last), std::string::npos) << xml;
  EXPECT_NE(xml.find("median time, ms"), std::string::npos);
  EXPECT_NE(xml.find("MiB"), std::string::npos);
  for (const char* side : {">32<", ">64<", ">128<"}) EXPECT_EQ(count_of(xml, side), 2U) << side;
  EXPECT_EQ(xml.find("nan"), std::string::npos);
  EXPECT_EQ(xml.find("inf"), std::string::npos);
}

TEST(BenchFigures, ASvgThatCannotBeWrittenIsToldBeforeMeasuring) {
  const ScratchFolder folder;
  const std::string model = write_small_model(folder / "m.safetensors");
  const std::vector<std::string> bench = {"bench", model, "--size", "32", "--min-time", "3600", "--svg"};
  const auto with = [&](const std::string& path) {
    std::vector<std::string> arguments = bench;
    arguments.push_back(path);
    return weft_command(arguments);
  };
  expect_error(with(folder / "gone/f.svg"), 1, "f.svg");
  expect_error(with(folder.path().string()), 1, "directory");
}

TEST(BenchFigures, AFailedBenchStillDrawsWhatThereIs) {
  const ScratchFolder folder;
  write_text(folder / "bad.safetensors", "no checkpoint");
  const std::string svg = folder / "f.svg";
  const Outcome outcome =
      weft_command({"bench", folder / "bad.safetensors", "--size", "32", "--min-time", "0", "--svg", svg});
  expect_error(outcome, 1, "bad.safetensors");
  EXPECT_NE(outcome.out.find("failed: "), std::string::npos) << outcome.out;
  EXPECT_TRUE(well_formed(read_text(svg)));
}

// A folder with a program "node" that plays the peer, and what makes weft find it.
class BenchPeer : public ::testing::Test {
 protected:
  void SetUp() override {
    const Outcome outcome = weft_command({"export", "vrwkv_tiny", folder_ / "x.onnx"});
    if (outcome.err.find("libonnx-dev") != std::string::npos) GTEST_SKIP() << "this build has no libonnx";
  }
  // `run` is what it does when it is asked for a run.
  RunOptions with_node(const std::string& run) {
    fs::create_directories(folder_ / "bin");
    const std::string node = folder_ / "bin/node";
    write_text(node, fmt::format("#!/bin/sh\n"
                                 "if [ \"$2\" = --version ]; then echo '{{\"version\": \"9.8.7\"}}'; exit; fi\n"
                                 "head -c 4000 \"$2\" >'{0}/model'; echo \"$3 $4\" >'{0}/arguments'; echo \"$5\"\n"
                                 "while read -r request; do case $request in\n"
                                 "  run) {1};;\n"
                                 "  memory) echo '{{\"peak\": 123456}}';;\n"
                                 "esac; done\n",
                                 folder_.path().string(), run));
    fs::permissions(node, fs::perms::owner_all);
    return {.environment = {{"PATH", (folder_ / "bin") + ":/usr/bin:/bin"}}};
  }
  Outcome bench(const RunOptions& options, const std::string& peer = "onnxruntime") {
    return weft_command({"bench", model_, "--size", "32", "--threads", "1", "--min-time", "0", "--json", "--vs", peer},
                        options);
  }

  ScratchFolder folder_;
  std::string model_ = write_small_model(folder_ / "m.safetensors");
};

TEST_F(BenchPeer, TakesTurnsAndIsComparedWith) {
  const Outcome outcome = bench(with_node("echo '{\"seconds\": 2}'"));
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  std::vector<Json> rows = json_lines(outcome.out);
  ASSERT_EQ(rows.size(), 2U);
  const double own = rows[0]["median_ms"].get<double>() / 1e3;
  EXPECT_NEAR(rows[0]["vs"].get<double>(), 2 / own, 1e-6 * 2 / own);
  EXPECT_LE(rows[0]["vs_p10"], rows[0]["vs"]);
  EXPECT_GE(rows[0]["vs_p90"], rows[0]["vs"]);
  EXPECT_EQ(rows[1]["engine"], "onnxruntime");
  EXPECT_EQ(rows[1]["model"], "deit_tiny_patch16_224");
  EXPECT_EQ(rows[1]["dtype"], "f32");
  EXPECT_EQ(rows[1]["threads"], 1);
  EXPECT_EQ(rows[1]["tokens"], 4);
  EXPECT_EQ(rows[1]["median_ms"], 2000);
  EXPECT_EQ(rows[1]["peak_resident_bytes"], 123456);
  EXPECT_FALSE(rows[1].contains("working_bytes"));
  EXPECT_FALSE(rows[1].contains("vs"));
  EXPECT_EQ(read_text(folder_ / "arguments"), "1 0\n");
  const std::string onnx = read_text(folder_ / "model");
  EXPECT_TRUE(onnx.starts_with("\x08\x08\x12\x04weft")) << onnx.substr(0, 40);  // IR version 8, producer
}

TEST_F(BenchPeer, OneForEachCombinationThatDiffersForIt) {
  const RunOptions options = with_node("echo '{\"seconds\": 2}'");
  const Outcome outcome =
      weft_command({"bench", model_, "vrwkv_tiny", "--set", "depth=1", "--size", "32", "--threads", "1,2", "--dtype",
                    "f32,bf16", "--min-time", "0", "--vs", "onnxruntime", "--vs-spinning", "--json"},
                   options);
  std::vector<Json> rows = json_lines(outcome.out);
  EXPECT_EQ(std::ranges::count_if(rows, [](const Json& row) { return row["engine"] == "onnxruntime"; }), 2);
  EXPECT_TRUE(read_text(folder_ / "arguments").ends_with(" 1\n"));
}

TEST_F(BenchPeer, MayDie) {
  const Outcome outcome = bench(with_node("kill -9 $$"));
  expect_error(outcome, 0, "out of memory?");
  std::vector<Json> rows = json_lines(outcome.out);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_GE(rows[0]["runs"], 5);
  EXPECT_FALSE(rows[0].contains("vs"));
  EXPECT_NE(rows[1]["error"].get<std::string>().find("signal 9"), std::string::npos);
  expect_error(bench(with_node("exit 3")), 0, "ended early");
  expect_error(bench(with_node("echo '{\"error\": \"no room\"}'")), 0, "no room");
  expect_error(bench(with_node("echo no JSON")), 0, "expected JSON");
  expect_error(bench(with_node("echo '{}'")), 0, "seconds");
}

TEST_F(BenchPeer, IsInTheTableForPeople) {
  const RunOptions options = with_node("echo '{\"seconds\": 2}'");
  const Outcome outcome =
      weft_command({"bench", model_, "--size", "32", "--min-time", "0", "--vs", "onnxruntime"}, options);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* part : {"peer/this", "deit_tiny_patch16_224 [onnxruntime]", "2000.00", "onnxruntime 9.8.7"}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " in\n" << outcome.out;
  }
}

TEST_F(BenchPeer, TheRealOneIsMeasured) {
  if (!fs::exists(fs::path(WEFT_SOURCE_DIR) / "tools/peers/node_modules/onnxruntime-node")) {
    GTEST_SKIP() << "tools/peers has no onnxruntime-node: scripts/peers installs it";
  }
  const Outcome outcome = bench({});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  std::vector<Json> rows = json_lines(outcome.out);
  ASSERT_EQ(rows.size(), 2U);
  ASSERT_TRUE(rows[1].contains("median_ms")) << outcome.out;
  EXPECT_GE(rows[1]["runs"], 5);
  EXPECT_GT(rows[1]["peak_resident_bytes"], 10 << 20);
  EXPECT_GT(rows[0]["vs"], 0);
}

TEST_F(BenchPeer, WhatItCannotServeIsARowAndNoFailure) {
  const Outcome outcome = bench(with_node("echo '{\"seconds\": 1}'"), "onnxruntime:vrwkv_tiny");
  expect_error(outcome, 0, "the peer failed");
  std::vector<Json> rows = json_lines(outcome.out);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_TRUE(rows[0].contains("median_ms"));
  EXPECT_FALSE(rows[0].contains("vs"));
  EXPECT_EQ(rows[1]["engine"], "onnxruntime");
  EXPECT_NE(rows[1]["error"].get<std::string>().find("bi_wkv"), std::string::npos);
}

TEST_F(BenchPeer, TellsWhatIsMissingBeforeMeasuring) {
  const RunOptions good = with_node("echo '{\"seconds\": 1}'");
  expect_error(bench(good, "tvm"), 2, "--vs");
  expect_error(bench(good, "onnxruntime:vit_enormous"), 1, "vit_enormous");
  expect_error(weft_command({"bench", model_, "--vs-spinning"}), 2, "--vs-spinning");
  RunOptions no_node = good;
  no_node.environment[0].second = folder_ / "nowhere";
  expect_error(bench(no_node, "onnxruntime:vrwkv_tiny"), 1, "nodejs");
  RunOptions no_script = good;
  no_script.environment.emplace_back("WEFT_PEERS", folder_.path().string());
  expect_error(bench(no_script, "onnxruntime:vrwkv_tiny"), 1, "WEFT_PEERS");
}

TEST_F(BenchPeer, TellsWhenThePackageIsMissing) {
  fs::copy_file(fs::path(WEFT_SOURCE_DIR) / "tools/peers/onnxruntime.mjs", folder_ / "onnxruntime.mjs");
  const Outcome outcome =
      bench({.environment = {{"WEFT_PEERS", folder_.path().string()}, {"NODE_PATH", ""}}}, "onnxruntime:vrwkv_tiny");
  if (outcome.err.find("nodejs") != std::string::npos) GTEST_SKIP() << "this machine has no node";
  expect_error(outcome, 1, "npm package onnxruntime-node is missing");
}

}  // namespace
}  // namespace weft::testing
