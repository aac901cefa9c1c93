// gzip files (RFC 1952), read piece by piece.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "io/mapped_file.h"

namespace weft {

/// Whether these bytes begin as a gzip file does.
bool is_gzip(std::span<const std::byte> bytes);

/// Unpacks as much as is asked for, so that a small file cannot fill the memory with what it claims to hold. Members
/// one behind the other count as one.
class GzipReader {
 public:
  /// `file` lives as long as its owner says, as FileBytes do.
  explicit GzipReader(FileBytes file);
  ~GzipReader();
  GzipReader(const GzipReader&) = delete;
  GzipReader& operator=(const GzipReader&) = delete;

  /// Fills `out` and returns how much of it: less only at the end. Throws IoError for a damaged or truncated file.
  std::size_t read(std::span<std::byte> out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
