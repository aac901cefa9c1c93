// Files made to break whoever reads them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace weft::testing {

struct HostileFile {
  enum class Kind { kWeights, kArray, kPicture };
  Kind kind;
  std::filesystem::path path;
  /// A part of the message that weft refuses the file with; empty where the text is a library's.
  std::string reason;
};

/// Writes them all into `directory`: truncated, lying about sizes, endlessly nested, exponentially shared, compressed
/// bombs, and pickles that would run commands. None is larger than a few megabytes.
std::vector<HostileFile> write_hostile_files(const std::filesystem::path& directory);

}  // namespace weft::testing
