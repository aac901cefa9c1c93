// The IDX format of the MNIST family (LeCun 1998): grey pictures in one file, their labels in another, each perhaps
// packed by gzip.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "data/dataset.h"
#include "io/mapped_file.h"

namespace weft {

/// How long the header of an unpacked IDX file says that the file is, in bytes; nothing where it does not begin as one.
std::optional<std::uint64_t> idx_size(const FileBytes& file);

/// The pictures of `images`, as RGB, with the labels of the file beside it whose name has "labels-idx1" for
/// "images-idx3". Classes are named by their numbers, 0 to the largest label. Throws IoError.
std::shared_ptr<const Dataset> open_idx(const std::string& name, const std::filesystem::path& images);

}  // namespace weft
