#include "data/dataset.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "core/format.h"
#include "data/cifar.h"
#include "data/class_folders.h"
#include "data/idx.h"
#include "io/gzip.h"
#include "io/mapped_file.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

// The files in `folder` whose names please, in order.
template <class Predicate>
std::vector<fs::path> files_of(const fs::path& folder, const Predicate& pleases) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (pleases(entry.path().filename().string()) && entry.is_regular_file()) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

std::vector<fs::path> cifar_batches(const fs::path& folder, Split split) {
  const std::string_view prefix = split == Split::kTrain ? "data_batch_" : "test_batch";
  return files_of(folder, [=](std::string_view name) { return name.starts_with(prefix) && name.ends_with(".bin"); });
}

std::optional<fs::path> idx_pictures(const std::string& name, const fs::path& folder, Split split) {
  std::vector<fs::path> files = files_of(folder, [=](std::string_view file) {
    const bool test = contains(file, "t10k-") || contains(file, "test-");
    return contains(file, "images") && contains(file, "idx3") && test == (split == Split::kTest);
  });
  // Of a file that is there packed and unpacked, the latter.
  std::erase_if(files, [&](const fs::path& path) {
    return path.extension() == ".gz" && std::ranges::find(files, fs::path(path).replace_extension()) != files.end();
  });
  if (files.empty()) return std::nullopt;
  require<IoError>(files.size() == 1, name, "holds several data sets ({}, {}, …); give the file of the pictures",
                   printable(files[0].filename().string(), 60),
                   printable(files[files.size() - 1].filename().string(), 60));
  return files[0];
}

// Where nothing but train/ and val/ (or test/ …) lies in a folder, the one that is meant; else the folder itself.
fs::path split_folder(const std::string& name, const fs::path& folder, Split split) {
  constexpr std::array<std::string_view, 4> kTestNames = {"val", "valid", "validation", "test"};
  std::optional<fs::path> train;
  std::optional<fs::path> test;
  for (const fs::path& path : subfolders_of(folder)) {
    const std::string its_name = path.filename().string();
    const bool is_test = std::ranges::find(kTestNames, its_name) != kTestNames.end();
    if (its_name != "train" && !is_test) return folder;
    if (its_name == "train") train = path;
    if (is_test && (!test || its_name.starts_with("val"))) test = path;  // the test set of a challenge has no labels
  }
  if (!train && !test) return folder;
  const auto& meant = split == Split::kTrain ? train : test;
  require<IoError>(meant.has_value(), name, "has no sub-folder {}", split == Split::kTrain ? "train" : "val or test");
  return *meant;
}

bool is_xz(const FileBytes& file) {
  constexpr std::array<unsigned char, 6> kMagic = {0xFD, '7', 'z', 'X', 'Z', 0};
  return file.bytes.size() >= kMagic.size() &&
         std::ranges::equal(kMagic, file.bytes.first(kMagic.size()), {}, {},
                            [](std::byte b) { return std::to_integer<unsigned char>(b); });
}

std::shared_ptr<const Dataset> open_file(const std::string& name, const fs::path& path) {
  const FileBytes file = map_file(path);
  require<IoError>(!is_xz(file), name, "is packed; unpack it: `xz -dc {} > data.bin`", name);
  const std::size_t size = file.bytes.size();
  const bool records = size % kCifarRecord == 0;
  const auto told = idx_size(file);
  // A CIFAR record may begin as an IDX file does: then the size tells.
  if (is_gzip(file.bytes) || (told && (*told == size || !records))) return open_idx(name, path);
  require<IoError>(records, name,
                   "expected a folder of class folders, a CIFAR-10 binary file (a multiple of {} bytes) or an IDX file "
                   "of pictures (…-images-idx3-ubyte), got a file of {} bytes that is neither",
                   kCifarRecord, size);
  return open_cifar(name, {path});
}

std::shared_ptr<const Dataset> open_folder(const std::string& name, const fs::path& path, Split split) {
  if (const auto batches = cifar_batches(path, split); !batches.empty()) return open_cifar(name, batches);
  if (const auto pictures = idx_pictures(name, path, split)) return open_idx(name, *pictures);
  return open_class_folders(name, split_folder(name, path, split));
}

}  // namespace

std::shared_ptr<const Dataset> open_dataset(const fs::path& path, Split split) {
  const std::string name = printable(path.string(), 1000);
  try {
    require<IoError>(fs::exists(path), name, "there is no such file or folder");
    return fs::is_directory(path) ? open_folder(name, path, split) : open_file(name, path);
  } catch (const fs::filesystem_error& error) {
    fail<IoError>(name, "{} cannot be read: {}", printable(error.path1().string()), error.code().message());
  }
}

}  // namespace weft
