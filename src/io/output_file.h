// Files written whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace weft {

/// Writes beside the target and takes its place in commit(); without commit() the target stays as it was. A target that
/// is a link is followed; a device or a pipe is written to directly. All failures are IoErrors that name the target.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& target);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Flushes to the disk and renames.
  void commit();

 private:
  std::filesystem::path target_;
  std::string name_;
  std::string temporary_;  // empty: written directly, or committed
  int fd_ = -1;
};

}  // namespace weft
