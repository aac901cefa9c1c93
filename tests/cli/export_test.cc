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

}  // namespace
}  // namespace weft::testing
