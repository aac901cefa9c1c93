// The command line itself: exit codes, help, one line per error.
#include <algorithm>
#include <filesystem>

#include "tests/cli/command.h"

namespace weft::testing {
namespace {

const std::vector<std::string> kCommands = {"classify", "features", "info",  "inspect", "convert", "export",
                                            "models",   "eval",     "bench", "verify",  "compare"};

TEST(CommandLine, TellsItsVersion) {
  const Outcome outcome = weft_command({"--version"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(outcome.out.starts_with("weft ")) << outcome.out;
  EXPECT_EQ(outcome.err, "");
}

TEST(CommandLine, HelpsWithEveryCommand) {
  const Outcome all = weft_command({"--help"});
  EXPECT_EQ(all.code, 0);
  EXPECT_EQ(all.err, "");
  for (const std::string& command : kCommands) {
    EXPECT_NE(all.out.find("\n  " + command), std::string::npos) << command;
    const Outcome outcome = weft_command({command, "--help"});
    EXPECT_EQ(outcome.code, 0) << command;
    EXPECT_NE(outcome.out.find("Examples:"), std::string::npos) << command;
    EXPECT_NE(outcome.out.find("--json"), std::string::npos) << command;
    EXPECT_EQ(outcome.err, "");
  }
}

TEST(CommandLine, WrongUsageIsOneLineAndTwo) {
  expect_error(weft_command({}), 2, "weft --help");
  expect_error(weft_command({"weave"}), 2, "weave");
  expect_error(weft_command({"--frobnicate"}), 2, "--frobnicate");
  expect_error(weft_command({"classify"}), 2, "weft classify --help");
  expect_error(weft_command({"classify", "--frobnicate", "x.png"}), 2, "--frobnicate");
  expect_error(weft_command({"classify", "--top", "many", "x.png"}), 2, "--top");
  expect_error(weft_command({"classify", "--top", "0", "x.png"}), 2, "--top");
  expect_error(weft_command({"classify", "--threads", "-1", "x.png"}), 2, "--threads");
  expect_error(weft_command({"classify", "--threads", "99999999999999999999", "x.png"}), 2, "--threads");
  expect_error(weft_command({"classify", "--batch", "0", "x.png"}), 2, "--batch");
  expect_error(weft_command({"features", "--layers", "1,,2", "x.png"}), 2, "--layers");
  expect_error(weft_command({"features", "--layers", "one", "x.png"}), 2, "--layers");
  expect_error(weft_command({"features", "--out", "x.jpg", "x.png"}), 2, ".npy");
  expect_error(weft_command({"features", "--map", "1", "x.png"}), 2, "--map");
  expect_error(weft_command({"info"}), 2, "MODEL");
  expect_error(weft_command({"info", "vrwkv_tiny", "--set", "depth"}), 2, "KEY=VALUE");
  expect_error(weft_command({"inspect", "x.pth", "--set", "=1"}), 2, "KEY=VALUE");
  expect_error(weft_command({"convert", "a.pth"}), 2, "OUT");
  expect_error(weft_command({"convert", "a.pth", "b.pth"}), 2, ".safetensors");
  expect_error(weft_command({"convert", "a.pth", "b.safetensors", "--dtype", "int3"}), 2, "--dtype");
  expect_error(weft_command({"export", "vrwkv_tiny"}), 2, "OUT");
  expect_error(weft_command({"export", "vrwkv_tiny", "x.pb"}), 2, ".onnx");
  expect_error(weft_command({"export", "vrwkv_tiny", "x.onnx", "--batch", "0"}), 2, "--batch");
  expect_error(weft_command({"export", "vrwkv_tiny", "x.onnx", "--size", "0"}), 2, "--size");
  expect_error(weft_command({"export", "vrwkv_tiny", "x.onnx", "--layers", "a"}), 2, "--layers");
  expect_error(weft_command({"models", "vrwkv_tiny"}), 2, "vrwkv_tiny");
  expect_error(weft_command({"eval"}), 2, "DATA");
  expect_error(weft_command({"bench", "vrwkv_tiny", "--batch", "0"}), 2, "--batch");
  expect_error(weft_command({"bench", "vrwkv_tiny", "--min-time", "-1"}), 2, "--min-time");
}

TEST(CommandLine, SizesAreChecked) {
  for (const char* size :
       {"0", "-1", "x", "32x", "x32", "32x32x32", "1.5", "65537", "99999999999999999999", "", " 32"}) {
    if (*size == '\0') continue;  // an empty value is no value
    expect_error(weft_command({"info", "vrwkv_tiny", "--size", size}), 2, "--size");
    expect_error(weft_command({"bench", "vrwkv_tiny", "--size", size}), 2, "--size");
  }
}

TEST(CommandLine, MissingThingsAreOneLineAndOne) {
  const ScratchFolder folder;
  const std::string nothing = folder / "nothing.safetensors";
  for (const char* command : {"info", "inspect", "bench"}) {
    expect_error(weft_command({command, nothing}), 1, "no such file");
  }
  expect_error(weft_command({"classify", "--model", nothing, "x.png"}), 1, "no such file");
  expect_error(weft_command({"features", "--model", nothing, "x.png"}), 1, "no such file");
  expect_error(weft_command({"eval", "--model", nothing, folder / "data"}), 1, "no such file");
  expect_error(weft_command({"convert", nothing, folder / "out.safetensors"}), 1, "no such file");
  expect_error(weft_command({"info", "vrwkv_enormous"}), 1, "vrwkv_tiny");
  expect_error(weft_command({"bench", "vrwkv_enormous"}), 1, "vrwkv_tiny");
  expect_error(weft_command({"classify", "--model", "vrwkv_tiny", "x.png"}), 1, "preset");
}

TEST(CommandLine, AMissingModelIsToldWithItsNeighbours) {
  const ScratchFolder folder;
  write_small_model(folder / "there.safetensors");
  expect_error(weft_command({"info", folder / "their.safetensors"}), 1, "there.safetensors");
}

TEST(CommandLine, TellsWhenItsOutputIsLost) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  expect_error(weft_command({"models"}, {.output = "/dev/full"}), 1, "standard output");
  expect_error(weft_command({"--help"}, {.output = "/dev/full"}), 1, "standard output");
}

TEST(CommandLine, HelpFitsTheScreen) {
  for (const std::string& command : kCommands) {
    for (const std::string& line : lines_of(weft_command({command, "--help"}).out)) {
      const auto letters =
          std::ranges::count_if(line, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
      EXPECT_LE(letters, 120) << line;
    }
  }
}

TEST(CommandLine, ControlCharactersDoNotReachTheTerminal) {
  const Outcome outcome = weft_command({"info", "evil\x1b[2J\nname"});
  expect_error(outcome, 1, "evil");
  EXPECT_EQ(outcome.err.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace weft::testing
