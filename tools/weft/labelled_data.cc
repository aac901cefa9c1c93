#include "labelled_data.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include "core/format.h"

namespace weft::cli {
namespace fs = std::filesystem;
namespace {

// A CIFAR-10 record (Krizhevsky 2009): the label, then the red, green and blue planes of a 32 × 32 picture.
constexpr std::int64_t kSide = 32;
constexpr std::size_t kPlane = kSide * kSide;
constexpr std::size_t kRecord = 1 + 3 * kPlane;
using Record = std::array<std::uint8_t, kRecord>;

Image image_of(const Record& record) {
  Image image{.height = kSide, .width = kSide, .channels = 3, .pixels = std::vector<std::uint8_t>(3 * kPlane)};
  for (std::size_t i = 0; i < kPlane; ++i) {
    for (std::size_t c = 0; c < 3; ++c) image.pixels[3 * i + c] = record[1 + c * kPlane + i];
  }
  return image;
}

// `stream` lives as long as the result.
NextSource cifar_records(std::shared_ptr<std::istream> stream, const std::string& name, int classes) {
  return [=, index = std::int64_t{0}]() mutable -> std::optional<PictureSource> {
    auto record = std::make_shared<Record>();
    stream->read(reinterpret_cast<char*>(record->data()), kRecord);
    const std::streamsize got = stream->gcount();
    if (got == 0 && index > 0) return std::nullopt;
    require<IoError>(got == static_cast<std::streamsize>(kRecord), name,
                     "record {} of the CIFAR-10 binary format must be {} bytes, got {}", index, kRecord, got);
    const int label = (*record)[0];
    require<IoError>(
        label < 10 && label < classes, name,
        "record {} has label {}, but the model has {} classes and CIFAR-10 has 10: no CIFAR-10 binary file", index,
        label, classes);
    ++index;
    return PictureSource{.name = fmt::format("{}#{}", name, index - 1), .label = label, .decode = [record] {
                           return image_of(*record);
                         }};
  };
}

bool is_xz(std::istream& stream) {
  constexpr std::array<char, 6> kMagic = {'\xFD', '7', 'z', 'X', 'Z', '\0'};
  std::array<char, 6> start{};
  stream.read(start.data(), start.size());
  const bool same = start == kMagic;
  stream.clear();
  stream.seekg(0);
  return same;
}

LabelledData open_cifar(const std::string& path, int classes) {
  auto file = std::make_shared<std::ifstream>(path, std::ios::binary);
  require<IoError>(file->is_open(), path, "cannot read the file");
  require<IoError>(!is_xz(*file), path, "is packed; unpack it: `xz -dc {} | weft eval -`", path);
  const auto bytes = static_cast<std::int64_t>(fs::file_size(path));
  const auto record = static_cast<std::int64_t>(kRecord);
  require<IoError>(
      bytes > 0 && bytes % record == 0, path,
      "expected a folder of class folders or a CIFAR-10 binary file (a multiple of {} bytes), got {} bytes", record,
      bytes);
  return {cifar_records(std::move(file), path, classes), bytes / record};
}

bool hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

std::vector<fs::path> class_folders(const fs::path& folder) {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() && !hidden(entry.path())) folders.push_back(entry.path());
  }
  std::ranges::sort(folders);
  return folders;
}

// The class of each folder.
std::vector<int> classes_of(const fs::path& data, const std::vector<fs::path>& folders,
                            const std::vector<std::string>& labels, int classes) {
  std::vector<int> numbers;
  std::string unknown;
  for (const fs::path& folder : folders) {
    const auto label = std::ranges::find(labels, folder.filename().string());
    if (label == labels.end()) {
      if (unknown.size() < 200) unknown += fmt::format(" {}", printable(folder.filename().string(), 60));
    } else {
      numbers.push_back(static_cast<int>(label - labels.begin()));
    }
  }
  if (unknown.empty()) return numbers;
  require<ConfigError>(numbers.empty(), data.string(), "some folders are named as classes of the model, but not:{}",
                       unknown);
  require<ConfigError>(static_cast<int>(folders.size()) == classes, data.string(),
                       "has {} class folders, which are not named as the model's labels, but the model has {} classes",
                       folders.size(), classes);
  for (int i = 0; i < classes; ++i) numbers.push_back(i);
  return numbers;
}

LabelledData open_folders(const std::string& path, const std::vector<std::string>& labels, int classes,
                          std::int64_t limit) {
  const std::vector<fs::path> folders = class_folders(path);
  require<IoError>(!folders.empty(), path, "has no sub-folders; expected one per class");
  const std::vector<int> numbers = classes_of(path, folders, labels, classes);
  auto files = std::make_shared<std::vector<std::pair<std::string, int>>>();
  for (std::size_t i = 0; i < folders.size(); ++i) {
    const std::size_t first = files->size();
    for (const auto& entry : fs::recursive_directory_iterator(folders[i])) {
      if (entry.is_regular_file() && !hidden(entry.path())) files->emplace_back(entry.path().string(), numbers[i]);
    }
    std::sort(files->begin() + static_cast<std::ptrdiff_t>(first), files->end());
  }
  require<IoError>(!files->empty(), path, "has no pictures in its class folders");
  const std::size_t all = files->size();
  const std::size_t count = limit > 0 ? std::min(all, static_cast<std::size_t>(limit)) : all;
  return {[files, all, count, i = std::size_t{0}]() mutable -> std::optional<PictureSource> {
            if (i == count) return std::nullopt;
            const auto& [name, label] = (*files)[i++ * all / count];
            return PictureSource{.name = name, .label = label, .decode = [path = name] { return decode_image(path); }};
          },
          static_cast<std::int64_t>(count)};
}

}  // namespace

LabelledData open_labelled_data(const std::string& path, const std::vector<std::string>& labels, int classes,
                                std::int64_t limit) {
  if (path == "-") {
    const std::shared_ptr<std::istream> in(&std::cin, [](std::istream*) {});
    return {cifar_records(in, "standard input", classes), -1};
  }
  std::error_code error;
  require<IoError>(fs::exists(path, error), path, "there is no such file or folder");
  return fs::is_directory(path, error) ? open_folders(path, labels, classes, limit) : open_cifar(path, classes);
}

}  // namespace weft::cli
