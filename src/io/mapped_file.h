// Files as memory: read-only, and without a copy.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace weft {

/// The bytes of a file, who keeps them alive, and what messages call it. Readers lend parts of `bytes` to tensors
/// together with `owner`; without an owner the tensors are valid for as long as the caller's memory is.
struct FileBytes {
  std::span<const std::byte> bytes;
  std::string name;
  std::shared_ptr<const void> owner = nullptr;
};

/// Maps a file. Throws IoError when it is missing, unreadable, empty, or anything but a regular file. A mapped file
/// must not be cut short while in use; files that weft itself writes are replaced as a whole and so are safe.
FileBytes map_file(const std::filesystem::path& path);

}  // namespace weft
