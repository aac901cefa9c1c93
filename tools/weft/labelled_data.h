// Pictures whose class is known: folders of classes, and the CIFAR-10 binary format.
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

/// `path` is a folder with a sub-folder per class, a file of CIFAR-10 records, or "-" for such records on the standard
/// input. Sub-folders are matched with `labels` by name where they bear such names, else in sorted order with the
/// classes. With a `limit` (0: none) a folder gives so many pictures, spread evenly over all of its files and so over
/// its classes. Throws IoError, ConfigError.
LabelledData open_labelled_data(const std::string& path, const std::vector<std::string>& labels, int classes,
                                std::int64_t limit);

}  // namespace weft::cli
