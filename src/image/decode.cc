// Decoding through libvips.
//
// Pixels are read strip by strip in the calling thread, straight to where the EXIF orientation wants them, so that a
// picture needs its own size in memory and little more, and callers get parallelism by decoding several at once.
#include <dlfcn.h>
#include <fcntl.h>
#include <gmodule.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <mutex>
#include <shared_mutex>

#include "core/format.h"
#include "image/vips.h"
#include "weft/image.h"

namespace weft {
namespace {

constexpr std::string_view kFormats = "JPEG, PNG, WebP, GIF, TIFF or HEIF";
constexpr std::size_t kMaxName = 1000;                   // of a path in a message
constexpr std::size_t kMaxPiped = std::size_t{1} << 30;  // bytes accepted from a pipe

/// Loads libvips' HEIF decoder, which lies in `vips-modules-X.Y` beside the library. False where there is none.
bool load_heif_module() {
  static const bool ok = [] {
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&vips_init), &info) == 0 || info.dli_fname == nullptr) return false;
    const std::filesystem::path module = std::filesystem::path(info.dli_fname).parent_path() /
                                         fmt::format("vips-modules-{}.{}", vips_version(0), vips_version(1)) /
                                         "vips-heif.so";
    // Never closed: GLib types cannot be unregistered.
    return g_module_open(module.c_str(), G_MODULE_BIND_LAZY) != nullptr;
  }();
  return ok;
}

/// Where to read a picture: a new source per attempt, null when libvips refuses.
using OpenSource = std::function<Ref<VipsSource>()>;

/// Throws IoError unless the bytes begin like one of the formats that are safe to read from strangers. libvips has more
/// loaders (matrices as text, PDF, its own raw format, …); none of them is meant for photographs.
void check_format(VipsSource* source, const std::string& name) {
  constexpr std::string_view kBase = "VipsForeignLoad";
  const auto find = [source] {
    const char* loader = vips_foreign_find_load_source(source);
    return std::string_view(loader == nullptr ? "" : loader);
  };
  const auto known = [&](std::string_view loader) {
    if (!loader.starts_with(kBase)) return false;
    loader.remove_prefix(kBase.size());
    return std::ranges::any_of(std::array{"Jpeg", "Png", "Webp", "Nsgif", "Tiff", "Heif"},
                               [&](std::string_view prefix) { return loader.starts_with(prefix); });
  };
  if (known(find())) return;
  const unsigned char* start = vips_source_sniff(source, 12);
  if (start != nullptr && std::memcmp(start + 4, "ftyp", 4) == 0) {
    require<IoError>(load_heif_module(), name, "cannot decode HEIF or AVIF: this libvips has no module for it");
    if (known(find())) return;
  }
  fail<IoError>(name, "not a picture that can be read: expected {}", kFormats);
}

void check_limits(const VipsImage* image, const DecodeLimits& limits, const std::string& name) {
  const std::int64_t width = image->Xsize;
  const std::int64_t height = image->Ysize;
  require<IoError>(width <= limits.max_side && height <= limits.max_side && height <= limits.max_pixels / width, name,
                   "picture too large: expected at most {} pixels a side and {} in all, got {}x{}", limits.max_side,
                   limits.max_pixels, width, height);
}

/// EXIF orientation 1 … 8; without one that of XMP, as Pillow's exif_transpose; 1 for anything else.
int orientation_of(VipsImage* image) {
  int orientation = 1;
  if (vips_image_get_typeof(image, VIPS_META_ORIENTATION) != 0) {
    orientation = vips_image_get_orientation(image);
  } else if (vips_image_get_typeof(image, VIPS_META_XMP_NAME) != 0) {
    const void* data = nullptr;
    std::size_t size = 0;
    if (vips_image_get_blob(image, VIPS_META_XMP_NAME, &data, &size) != 0) return 1;
    constexpr std::string_view kTag = "tiff:Orientation";
    std::string_view xmp(static_cast<const char*>(data), size);
    xmp.remove_prefix(std::min(xmp.find(kTag), xmp.size()));
    xmp.remove_prefix(std::min(kTag.size(), xmp.size()));
    if (xmp.starts_with("=\"")) {
      xmp.remove_prefix(2);
    } else if (xmp.starts_with(">")) {
      xmp.remove_prefix(1);
    } else {
      return 1;
    }
    if (!xmp.empty()) orientation = xmp.front() - '0';
  }
  return orientation >= 1 && orientation <= 8 ? orientation : 1;
}

/// Where the pixel (x, y) of a file goes in the upright picture: at `origin + x·step_x + y·step_y`, counted in pixels.
struct Placement {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t origin = 0;
  std::int64_t step_x = 0;
  std::int64_t step_y = 0;
};

Placement place(std::int64_t height, std::int64_t width, int orientation) {
  const bool turned = orientation >= 5;  // rows of the file are columns of the picture
  const bool mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Placement at{.height = turned ? width : height, .width = turned ? height : width};
  at.step_x = turned ? at.width : 1;
  at.step_y = turned ? 1 : at.width;
  if (mirror_x) {
    at.origin += (width - 1) * at.step_x;
    at.step_x = -at.step_x;
  }
  if (mirror_y) {
    at.origin += (height - 1) * at.step_y;
    at.step_y = -at.step_y;
  }
  return at;
}

std::uint8_t to_8_bits(std::uint8_t sample) { return sample; }
std::uint8_t to_8_bits(std::uint16_t sample) { return static_cast<std::uint8_t>(sample >> 8); }

/// Copies the pixels that `region` holds. One or two channels are grey (and alpha), three or more RGB (and alpha).
template <class Sample>
void copy_pixels(VipsRegion* region, int bands, const Placement& at, std::uint8_t* pixels) {
  const VipsRect& rect = region->valid;
  const int green = bands >= 3 ? 1 : 0;
  const int blue = bands >= 3 ? 2 : 0;
  const auto copy = [&](int x, int y) {
    const auto* from = reinterpret_cast<const Sample*>(VIPS_REGION_ADDR(region, x, y));
    std::uint8_t* to = pixels + 3 * (at.origin + x * at.step_x + y * at.step_y);
    to[0] = to_8_bits(from[0]);
    to[1] = to_8_bits(from[green]);
    to[2] = to_8_bits(from[blue]);
  };
  // The inner loop runs along the rows of the picture, for the sake of the cache.
  if (std::abs(at.step_x) == 1) {
    for (int y = rect.top; y < rect.top + rect.height; ++y) {
      for (int x = 0; x < rect.width; ++x) copy(x, y);
    }
  } else {
    for (int x = 0; x < rect.width; ++x) {
      for (int y = rect.top; y < rect.top + rect.height; ++y) copy(x, y);
    }
  }
}

/// The picture with 8 or 16-bit samples, grey or RGB; null when libvips fails.
Ref<VipsImage> to_rgb(Ref<VipsImage> image, const std::string& name) {
  switch (image->Type) {
    case VIPS_INTERPRETATION_CMYK:
    case VIPS_INTERPRETATION_LAB:
    case VIPS_INTERPRETATION_LABQ:
    case VIPS_INTERPRETATION_LABS: {
      VipsImage* rgb = nullptr;
      if (vips_colourspace(image.get(), &rgb, VIPS_INTERPRETATION_sRGB, nullptr) != 0) return nullptr;
      image.reset(rgb);
      break;
    }
    default:
      break;
  }
  require<IoError>(image->BandFmt == VIPS_FORMAT_UCHAR || image->BandFmt == VIPS_FORMAT_USHORT, name,
                   "expected unsigned samples of 8 or 16 bits, got {}",
                   vips_enum_nick(VIPS_TYPE_BAND_FORMAT, image->BandFmt));
  require<IoError>(image->Bands <= 4, name, "expected 1 to 4 channels, got {}", image->Bands);
  return image;
}

/// One attempt: nothing when libvips fails, which then has left its reasons in its error buffer.
std::optional<Image> try_decode(const OpenSource& open, const std::string& name, const DecodeLimits& limits) {
  const Ref<VipsSource> source = open();
  if (!source) return std::nullopt;
  check_format(source.get(), name);
  Ref<VipsImage> image(vips_image_new_from_source(source.get(), "", "access", VIPS_ACCESS_SEQUENTIAL, "fail_on",
                                                  VIPS_FAIL_ON_ERROR, nullptr));
  if (!image) return std::nullopt;
  check_limits(image.get(), limits, name);
  const Placement at = place(image->Ysize, image->Xsize, orientation_of(image.get()));
  image = to_rgb(std::move(image), name);
  if (!image) return std::nullopt;

  Image out{at.height, at.width, 3, std::vector<std::uint8_t>(static_cast<std::size_t>(at.height * at.width * 3))};
  const Ref<VipsRegion> region(vips_region_new(image.get()));
  constexpr int kStrip = 16;  // rows: a multiple of what JPEG decodes at once
  for (int y = 0; y < image->Ysize; y += kStrip) {
    const VipsRect strip{0, y, image->Xsize, std::min(kStrip, image->Ysize - y)};
    if (vips_region_prepare(region.get(), &strip) != 0) return std::nullopt;
    if (image->BandFmt == VIPS_FORMAT_UCHAR) {
      copy_pixels<std::uint8_t>(region.get(), image->Bands, at, out.pixels.data());
    } else {
      copy_pixels<std::uint16_t>(region.get(), image->Bands, at, out.pixels.data());
    }
  }
  return out;
}

/// libvips has one error buffer for the whole process. So pictures are decoded side by side, and one that fails is
/// tried again with no other in flight: the reason found then is its own.
Image decode(const OpenSource& open, const std::string& name, const DecodeLimits& limits) {
  init_vips();
  const ThreadCaches caches;
  static std::shared_mutex mutex;
  {
    const std::shared_lock lock(mutex);
    if (std::optional<Image> image = try_decode(open, name, limits)) return std::move(*image);
  }
  const std::unique_lock lock(mutex);
  vips_error_clear();
  if (std::optional<Image> image = try_decode(open, name, limits)) return std::move(*image);
  fail<IoError>(name, "cannot decode the picture: {}", take_vips_error());
}

class Descriptor {
 public:
  explicit Descriptor(const std::filesystem::path& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

/// All of a pipe or the like, which cannot be read twice.
std::vector<std::byte> read_all(int fd, const std::string& name) {
  std::vector<std::byte> bytes;
  constexpr std::size_t kChunk = std::size_t{1} << 16;
  for (;;) {
    const std::size_t size = bytes.size();
    require<IoError>(size <= kMaxPiped, name, "more than {} bytes from something that is no file", kMaxPiped);
    bytes.resize(size + kChunk);
    const ssize_t n = ::read(fd, bytes.data() + size, kChunk);
    if (n < 0 && errno != EINTR) fail<IoError>(name, "cannot read: {}", std::strerror(errno));
    bytes.resize(size + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    if (n == 0) return bytes;
  }
}

}  // namespace

Image decode_image(const std::filesystem::path& path, const DecodeLimits& limits) {
  const std::string name = printable(path.string(), kMaxName);
  const Descriptor file(path);
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) fail<IoError>(name, "cannot open: {}", std::strerror(errno));
  require<IoError>(!S_ISDIR(status.st_mode), name, "expected a picture, got a directory");
  if (!S_ISREG(status.st_mode)) return decode_image(read_all(file.get(), name), path.string(), limits);
  require<IoError>(status.st_size > 0, name, "the file is empty");
  const auto open = [&file] {
    ::lseek(file.get(), 0, SEEK_SET);
    return Ref<VipsSource>(vips_source_new_from_descriptor(file.get()));
  };
  return decode(open, name, limits);
}

Image decode_image(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits) {
  const std::string clean = printable(name, kMaxName);
  require<IoError>(!bytes.empty(), clean, "the file is empty");
  const auto open = [&] { return Ref<VipsSource>(vips_source_new_from_memory(bytes.data(), bytes.size())); };
  return decode(open, clean, limits);
}

}  // namespace weft
