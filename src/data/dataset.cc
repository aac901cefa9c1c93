#include "data/dataset.h"

#include <algorithm>

#include "core/format.h"
#include "data/cifar.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// data_batch_1.bin … or test_batch.bin, in order.
std::vector<fs::path> cifar_batches(const fs::path& folder, Split split) {
  const std::string prefix = split == Split::kTrain ? "data_batch_" : "test_batch";
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".bin") && entry.is_regular_file()) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

}  // namespace

std::shared_ptr<const Dataset> open_dataset(const fs::path& path, Split split) {
  const std::string name = printable(path.string(), 1000);
  try {
    require<IoError>(fs::exists(path), name, "there is no such file or folder");
    if (!fs::is_directory(path)) return open_cifar(name, {path});
    const std::vector<fs::path> batches = cifar_batches(path, split);
    require<IoError>(!batches.empty(), name, "holds no data set that weft knows: expected a CIFAR-10 binary file");
    return open_cifar(name, batches);
  } catch (const fs::filesystem_error& error) {
    fail<IoError>(name, "cannot be read: {}", error.code().message());
  }
}

}  // namespace weft
