// Files for the tests of readers and writers.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "io/mapped_file.h"
#include "weft/error.h"

namespace weft::testing {

/// A directory of its own, removed with all its files at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, std::string_view text);

/// `text` as a gzip file.
std::string gzip(std::string_view text);

/// The bytes of `text` under a name, without a copy.
FileBytes as_file(std::string_view text, std::string name = "x");

/// What the weft::Error says that `body` throws; "no error" otherwise. Says so when it is not one line "[place] …".
template <class F>
std::string error_of(F&& body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string what = error.what();
    const bool one_line = what.find('\n') == std::string::npos && what.starts_with("[");
    return one_line ? what : "not one line that starts with its place: " + what;
  }
  return "no error";
}

/// Whether `body` throws a weft::Error of one line "[place] …" that contains `text`.
template <class F>
::testing::AssertionResult refuses(F&& body, std::string_view text) {
  const std::string what = error_of(body);
  if (what.starts_with("[") && what.find(text) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "expected an error with: " << text << "\n  got: " << what;
}

}  // namespace weft::testing
