#include "image/encode.h"

#include "core/format.h"
#include "image/vips.h"

namespace weft {

std::vector<std::byte> encode_png(const Image& image) {
  constexpr const char* kPlace = "image::encode";
  constexpr std::int64_t kMaxSide = 65535;
  const bool sound = image.height > 0 && image.width > 0 && image.height <= kMaxSide && image.width <= kMaxSide &&
                     (image.channels == 1 || image.channels == 3) &&
                     image.pixels.size() == static_cast<std::size_t>(image.height * image.width * image.channels);
  require<ShapeError>(sound, kPlace, "expected pixels [H,W,1] or [H,W,3] with sides of 1 … {}, got {} for [{},{},{}]",
                      kMaxSide, image.pixels.size(), image.height, image.width, image.channels);
  init_vips();
  const ThreadCaches caches;
  const Ref<VipsImage> source(vips_image_new_from_memory(image.pixels.data(), image.pixels.size(),
                                                         static_cast<int>(image.width), static_cast<int>(image.height),
                                                         static_cast<int>(image.channels), VIPS_FORMAT_UCHAR));
  void* bytes = nullptr;
  std::size_t size = 0;
  const bool ok = source && vips_pngsave_buffer(source.get(), &bytes, &size, "compression", 9, "strip", TRUE,
                                                "interlace", FALSE, nullptr) == 0;
  require<IoError>(ok, kPlace, "cannot encode the picture: {}", take_vips_error());
  const std::unique_ptr<void, decltype(&g_free)> owner(bytes, g_free);
  const auto* first = static_cast<const std::byte*>(bytes);
  return {first, first + size};
}

}  // namespace weft
