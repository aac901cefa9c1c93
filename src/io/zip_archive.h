// Zip archives whose entries are stored, not compressed, read without a copy.
#pragma once

#include <map>
#include <span>
#include <string>

#include "io/mapped_file.h"

namespace weft {

/// The entries of an archive by name, as parts of `file.bytes`. Throws IoError for a damaged archive, for two entries
/// of one name, and for compressed or encrypted entries: torch.save stores its entries, so nothing is ever inflated
/// here. Checksums are not verified.
std::map<std::string, std::span<const std::byte>> read_zip_archive(const FileBytes& file);

}  // namespace weft
