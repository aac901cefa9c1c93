// Runs the built weft command and makes what it works on.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"
#include "io/testing/files.h"
#include "weft/image.h"
#include "weft/model.h"

namespace weft::testing {

/// What a run of the command left behind. Ended by signal s: code is 128 + s.
struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
};

struct RunOptions {
  std::string input = {};  // the standard input
  /// Beside or in place of this process's own, of which WEFT_… is not handed on.
  std::vector<std::pair<std::string, std::string>> environment = {};
  std::string output = {};  // a file for the standard output in place of Outcome::out
};

/// A folder for the files of a test; names in it are strings, ready for the command line.
class ScratchFolder : public TemporaryDirectory {
 public:
  std::string operator/(std::string_view name) const { return (path() / name).string(); }
};

/// A run of the command that goes on meanwhile. Killed when nobody waits for it.
class RunningCommand {
 public:
  explicit RunningCommand(std::vector<std::string> arguments, const RunOptions& options = {});
  ~RunningCommand();
  RunningCommand(const RunningCommand&) = delete;
  RunningCommand& operator=(const RunningCommand&) = delete;

  void signal(int number) const;
  /// What it has written to stderr so far.
  std::string err() const;
  /// Waits for its end.
  Outcome wait();

 private:
  ScratchFolder folder_;
  std::string output_;
  bool own_output_;
  int pid_ = 0;  // 0: not running
};

Outcome weft_command(std::vector<std::string> arguments, const RunOptions& options = {});

/// The lines of a text without their ends.
std::vector<std::string> lines_of(const std::string& text);
/// Each line of `text` as JSON. A line that is none is a test failure.
std::vector<Json> json_lines(const std::string& text);
/// The only line, as JSON.
Json only_json(const std::string& text);

/// Exactly one line "weft: …" on stderr and this exit code; `part` is in the line.
void expect_error(const Outcome& outcome, int code, std::string_view part);

/// As --dtype names them.
std::vector<std::string> dtype_names(const std::vector<DType>& dtypes);

/// A picture of noise.
Image noise(std::int64_t height, std::int64_t width, unsigned seed);
/// Writes it as an uncompressed TIFF file and returns what is in it.
std::string write_picture(const std::string& path, const Image& image);

/// A model of 2 layers, 24 channels, patches of 8, for pictures of 32 × 32, with 7 classes "class_a" … "class_g".
Model small_model(unsigned seed = 0);
/// Writes it as safetensors and returns the path.
std::string write_small_model(const std::string& path, unsigned seed = 0);

}  // namespace weft::testing
