#include "data/cifar.h"

#include <algorithm>

#include "core/format.h"
#include "io/mapped_file.h"

namespace weft {
namespace {

using Record = std::span<const std::byte, kCifarRecord>;

class Cifar : public Dataset {
 public:
  Cifar(std::string name, const std::vector<std::filesystem::path>& files) : name_(std::move(name)) {
    for (const auto& path : files) add(map_file(path));
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(labels_.size()); }
  Image image(std::int64_t i) const override {
    const File& file = file_of(i);
    return cifar_image(record(file, i - file.first));
  }
  int label(std::int64_t i) const override { return labels_[static_cast<std::size_t>(i)]; }
  std::string picture_name(std::int64_t i) const override {
    const File& file = file_of(i);
    return fmt::format("{}#{}", file.data.name, i - file.first);
  }
  const std::string& name() const override { return name_; }
  bool numbered() const override { return true; }
  const std::vector<std::string>& class_names() const override { return cifar_class_names(); }

 private:
  struct File {
    FileBytes data;
    std::int64_t first = 0;  // the number of its first record among all
  };

  static Record record(const File& file, std::int64_t i) {
    return Record(file.data.bytes.data() + static_cast<std::size_t>(i) * kCifarRecord, kCifarRecord);
  }

  const File& file_of(std::int64_t i) const {
    return *std::prev(std::ranges::upper_bound(files_, i, {}, &File::first));
  }

  void add(FileBytes data) {
    const std::size_t bytes = data.bytes.size();
    require<IoError>(bytes % kCifarRecord == 0, data.name,
                     "expected a CIFAR-10 binary file (a multiple of {} bytes), got {} bytes", kCifarRecord, bytes);
    files_.push_back({.data = std::move(data), .first = size()});
    const File& file = files_.back();
    const auto count = static_cast<std::int64_t>(bytes / kCifarRecord);
    for (std::int64_t i = 0; i < count; ++i) {
      labels_.push_back(static_cast<std::uint8_t>(cifar_label(record(file, i), file.data.name, i)));
    }
  }

  std::string name_;
  std::vector<File> files_;
  std::vector<std::uint8_t> labels_;
};

}  // namespace

const std::vector<std::string>& cifar_class_names() {
  static const std::vector<std::string> names = {"airplane", "automobile", "bird",  "cat",  "deer",
                                                 "dog",      "frog",       "horse", "ship", "truck"};
  return names;
}

int cifar_label(Record record, const std::string& name, std::int64_t index) {
  const int label = std::to_integer<int>(record[0]);
  require<IoError>(label < kCifarClasses, name,
                   "record {} has label {}, but CIFAR-10 has {} classes: no CIFAR-10 binary file", index, label,
                   kCifarClasses);
  return label;
}

Image cifar_image(Record record) {
  Image image{
      .height = kCifarSide, .width = kCifarSide, .channels = 3, .pixels = std::vector<std::uint8_t>(3 * kCifarPlane)};
  const std::byte* const red = record.data() + 1;
  const std::byte* const green = red + kCifarPlane;
  const std::byte* const blue = green + kCifarPlane;
  std::uint8_t* out = image.pixels.data();
  for (std::size_t i = 0; i < kCifarPlane; ++i, out += 3) {
    out[0] = std::to_integer<std::uint8_t>(red[i]);
    out[1] = std::to_integer<std::uint8_t>(green[i]);
    out[2] = std::to_integer<std::uint8_t>(blue[i]);
  }
  return image;
}

std::shared_ptr<const Dataset> open_cifar(const std::string& name, const std::vector<std::filesystem::path>& files) {
  return std::make_shared<Cifar>(name, files);
}

}  // namespace weft
