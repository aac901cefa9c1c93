#include "data/idx.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "core/format.h"
#include "io/gzip.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// Big endian: two zeros, the element type (8: unsigned byte), the number of axes; then the extents.
constexpr std::uint32_t kImagesMagic = 0x0803;
constexpr std::uint32_t kLabelsMagic = 0x0801;
constexpr std::size_t kMaxBytes = std::size_t{1} << 32;

std::uint32_t number_at(std::span<const std::byte> bytes, std::size_t at) {
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < 4; ++i) number = number << 8 | std::to_integer<std::uint32_t>(bytes[at + i]);
  return number;
}

// A file's bytes in order, unpacked on the way.
class Source {
 public:
  explicit Source(const fs::path& path) : Source(map_file(path)) {}
  explicit Source(FileBytes file) : file_(std::move(file)), left_(file_.bytes) {
    if (is_gzip(left_)) gzip_.emplace(file_);
  }

  const std::string& name() const { return file_.name; }
  bool packed() const { return gzip_.has_value(); }

  // Up to `count` bytes. What is not packed is not copied. Memory grows with what arrives, not with what is asked for.
  FileBytes take(std::size_t count) {
    if (!gzip_) {
      const auto part = left_.first(std::min(count, left_.size()));
      left_ = left_.subspan(part.size());
      return {.bytes = part, .name = file_.name, .owner = file_.owner};
    }
    constexpr std::size_t kStep = std::size_t{1} << 22;
    const auto data = std::make_shared<std::vector<std::byte>>();
    while (data->size() < count) {
      const std::size_t had = data->size();
      data->resize(std::min(count, had + kStep));
      const std::size_t got = gzip_->read(std::span(*data).subspan(had));
      if (had + got < data->size()) {
        data->resize(had + got);
        break;
      }
    }
    return {.bytes = *data, .name = file_.name, .owner = data};
  }

 private:
  FileBytes file_;
  std::span<const std::byte> left_;
  std::optional<GzipReader> gzip_;
};

struct IdxFile {
  std::vector<std::int64_t> extents;
  FileBytes data;
};

IdxFile read_idx(const fs::path& path, std::uint32_t magic, std::string_view what) {
  Source source(path);
  const std::string& name = source.name();
  const FileBytes head = source.take(4);
  const std::uint32_t found = head.bytes.size() == 4 ? number_at(head.bytes, 0) : 0;
  require<IoError>(found != kLabelsMagic || magic == kLabelsMagic, name,
                   "holds the labels of an IDX data set; give the file of its pictures (…-images-idx3-ubyte)");
  require<IoError>(found == magic, name, "holds no IDX {}: expected it to begin with {:#010x}, got {:#010x}{}", what,
                   magic, found, source.packed() ? "; unpack an archive first, for example by tar -xf" : "");
  const std::size_t axes = magic & 0xFF;
  const FileBytes sizes = source.take(4 * axes);
  require<IoError>(sizes.bytes.size() == 4 * axes, name, "the IDX header is truncated");
  IdxFile file;
  std::size_t bytes = 1;
  for (std::size_t i = 0; i < axes; ++i) {
    const std::uint32_t extent = number_at(sizes.bytes, 4 * i);
    file.extents.push_back(extent);
    require<IoError>(extent > 0 && extent <= kMaxBytes / bytes, name,
                     "extent {} of the IDX {} is {}: expected at least 1, and at most {} bytes in all", i, what, extent,
                     kMaxBytes);
    bytes *= extent;
  }
  file.data = source.take(bytes);
  require<IoError>(file.data.bytes.size() == bytes, name, "expected {} bytes of IDX {}, got {}: the file is truncated",
                   bytes, what, file.data.bytes.size());
  require<IoError>(source.take(1).bytes.empty(), name, "goes on behind the {} bytes of IDX {} that its header tells",
                   bytes, what);
  return file;
}

// The name of the labels' file, from that of the pictures'; packed or not, as it is there.
fs::path labels_beside(const fs::path& images) {
  std::string name = images.filename().string();
  const std::array<std::pair<std::string_view, std::string_view>, 2> kParts = {
      {{"images", "labels"}, {"idx3", "idx1"}}};
  for (const auto& [from, to] : kParts) {
    const std::size_t at = name.rfind(from);
    require<IoError>(at != std::string::npos, images.string(),
                     "cannot tell where its labels are: expected a name like train-images-idx3-ubyte.gz");
    name.replace(at, from.size(), to);
  }
  const fs::path path = images.parent_path() / name;
  const fs::path other = name.ends_with(".gz") ? fs::path(path).replace_extension() : fs::path(path.string() + ".gz");
  for (const fs::path& candidate : {path, other}) {
    if (fs::exists(candidate)) return candidate;
  }
  fail<IoError>(images.string(), "its labels are missing: expected {} beside it", printable(name));
}

class Idx : public Dataset {
 public:
  Idx(std::string name, const fs::path& images) : name_(std::move(name)) {
    IdxFile pictures = read_idx(images, kImagesMagic, "pictures");
    count_ = pictures.extents[0];
    height_ = pictures.extents[1];
    width_ = pictures.extents[2];
    pictures_ = std::move(pictures.data);
    labels_ = read_idx(labels_beside(images), kLabelsMagic, "labels").data;
    require<IoError>(static_cast<std::int64_t>(labels_.bytes.size()) == count_, labels_.name,
                     "has {} labels, but {} has {} pictures", labels_.bytes.size(), pictures_.name, count_);
    const int last = std::to_integer<int>(*std::ranges::max_element(labels_.bytes));
    for (int i = 0; i <= last; ++i) classes_.push_back(std::to_string(i));
  }

  std::int64_t size() const override { return count_; }
  Image image(std::int64_t i) const override {
    const auto pixels = static_cast<std::size_t>(height_ * width_);
    Image image{height_, width_, 3, std::vector<std::uint8_t>(3 * pixels)};
    std::uint8_t* out = image.pixels.data();
    for (const std::byte pixel : pictures_.bytes.subspan(static_cast<std::size_t>(i) * pixels, pixels)) {
      out = std::fill_n(out, 3, std::to_integer<std::uint8_t>(pixel));
    }
    return image;
  }
  int label(std::int64_t i) const override { return std::to_integer<int>(labels_.bytes[static_cast<std::size_t>(i)]); }
  std::string picture_name(std::int64_t i) const override { return fmt::format("{}#{}", pictures_.name, i); }
  const std::string& name() const override { return name_; }
  bool numbered() const override { return true; }
  const std::vector<std::string>& class_names() const override { return classes_; }

 private:
  std::string name_;
  std::int64_t count_ = 0;
  std::int64_t height_ = 0;
  std::int64_t width_ = 0;
  FileBytes pictures_;  // [count, height, width]
  FileBytes labels_;    // [count]
  std::vector<std::string> classes_;
};

}  // namespace

std::optional<std::uint64_t> idx_size(const FileBytes& file) {
  const std::uint32_t magic = file.bytes.size() < 4 ? 0 : number_at(file.bytes, 0);
  if (magic != kImagesMagic && magic != kLabelsMagic) return std::nullopt;
  const std::size_t head = 4 + 4 * (magic & 0xFF);
  std::uint64_t bytes = 1;
  for (std::size_t at = 4; at < head && at + 4 <= file.bytes.size(); at += 4) {
    constexpr std::uint64_t kMost = std::uint64_t{1} << 62;
    const std::uint64_t extent = number_at(file.bytes, at);
    bytes = extent > kMost / std::max<std::uint64_t>(bytes, 1) ? kMost : bytes * extent;
  }
  return head + bytes;
}

std::shared_ptr<const Dataset> open_idx(const std::string& name, const fs::path& images) {
  return std::make_shared<Idx>(name, images);
}

}  // namespace weft
