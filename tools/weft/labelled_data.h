// Pictures whose class is known, as sources for a PictureStream.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "picture_stream.h"

namespace weft::cli {

struct LabelledData {
  NextSource next;
  /// −1 when it is not known beforehand (a pipe).
  std::int64_t count = -1;
};

/// `path` is a data set (open_dataset; of one with two parts, the one for tests), or "-" for CIFAR-10 records on the
/// standard input. Classes are matched with `labels` by name where all of theirs are among these. Else a label that the
/// format numbers is the model's number of the class, and folders, in order of their names, are the model's classes.
/// With a `limit` (0: none) so many pictures are given, spread evenly over the data set and so over its classes; of a
/// pipe the first. Throws IoError, ConfigError.
LabelledData open_labelled_data(const std::string& path, const std::vector<std::string>& labels, int classes,
                                std::int64_t limit);

}  // namespace weft::cli
