// A folder with a sub-folder of pictures per class, as torchvision's ImageFolder reads it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace weft {

/// The sub-folders, in order of their names; hidden ones (.name) do not count.
std::vector<std::filesystem::path> subfolders_of(const std::filesystem::path& folder);

/// Classes are the sub-folders in order of their names. Pictures are the files in them and in folders of theirs, in
/// order of folder and name, whose extension is that of a format that decode_image knows; others, and hidden ones, are
/// passed over. They are opened when they are asked for. Throws IoError where there is no picture.
std::shared_ptr<const Dataset> open_class_folders(const std::string& name, const std::filesystem::path& folder);

}  // namespace weft
