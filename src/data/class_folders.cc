#include "data/class_folders.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <tuple>

#include "core/format.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 11> kExtensions = {".jpg", ".jpeg", ".jpe",  ".jfif", ".png", ".webp",
                                                          ".gif", ".tif",  ".tiff", ".heic", ".heif"};

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

bool is_picture(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return !is_hidden(path) && std::ranges::find(kExtensions, extension) != kExtensions.end();
}

std::vector<fs::path> pictures_in(const fs::path& folder) {
  std::vector<fs::path> pictures;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (is_picture(entry.path()) && entry.is_regular_file()) pictures.push_back(entry.path());
  }
  // As os.walk does: what lies in a folder itself before what lies deeper.
  std::ranges::sort(pictures, {}, [](const fs::path& path) {
    return std::pair(path.parent_path().string(), path.filename().string());
  });
  return pictures;
}

class ClassFolders : public Dataset {
 public:
  ClassFolders(std::string name, const fs::path& folder) : name_(std::move(name)) {
    for (const fs::path& path : subfolders_of(folder)) {
      for (const fs::path& picture : pictures_in(path)) {
        pictures_.push_back({.path = picture.string(), .label = classes()});
      }
      classes_.push_back(path.filename().string());
    }
    require<IoError>(!classes_.empty(), name_,
                     "has no sub-folders; expected one per class, or the files of CIFAR-10 or of an IDX data set");
    require<IoError>(!pictures_.empty(), name_, "has no pictures in its class folders: expected files named{}",
                     fmt::format(" *{}", fmt::join(kExtensions, " *")));
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(pictures_.size()); }
  Image image(std::int64_t i) const override { return decode_image(picture(i).path); }
  int label(std::int64_t i) const override { return picture(i).label; }
  std::string picture_name(std::int64_t i) const override { return printable(picture(i).path, 1000); }
  const std::string& name() const override { return name_; }
  bool numbered() const override { return false; }
  const std::vector<std::string>& class_names() const override { return classes_; }

 private:
  struct Picture {
    std::string path;
    int label = 0;
  };
  const Picture& picture(std::int64_t i) const { return pictures_[static_cast<std::size_t>(i)]; }

  std::string name_;
  std::vector<std::string> classes_;
  std::vector<Picture> pictures_;
};

}  // namespace

std::vector<fs::path> subfolders_of(const fs::path& folder) {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() && !is_hidden(entry.path())) folders.push_back(entry.path());
  }
  std::ranges::sort(folders, {}, [](const fs::path& path) { return path.filename().string(); });
  return folders;
}

std::shared_ptr<const Dataset> open_class_folders(const std::string& name, const fs::path& folder) {
  return std::make_shared<ClassFolders>(name, folder);
}

}  // namespace weft
