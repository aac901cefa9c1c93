#include "image/vips.h"

#include "core/format.h"

namespace weft {
namespace {

/// Hides libvips' directory of modules while it starts: loading them all (ImageMagick, OpenSlide, Poppler, …) takes
/// longer than decoding a photograph. libvips offers no other switch for it, and sets this variable itself otherwise.
bool init_without_modules() {
  constexpr const char* kHome = "VIPSHOME";
  if (g_getenv(kHome) != nullptr) return vips_init("weft") == 0;
  g_setenv(kHome, "/nonexistent", FALSE);
  const bool ok = vips_init("weft") == 0;
  g_unsetenv(kHome);
  return ok;
}

}  // namespace

void init_vips() {
  static const bool ok = [] {
    if (g_type_from_name("VipsForeignLoad") != 0) return vips_init("weft") == 0;
    if (!init_without_modules()) return false;
    g_log_set_handler(
        "VIPS", static_cast<GLogLevelFlags>(G_LOG_LEVEL_WARNING | G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO),
        [](const char*, GLogLevelFlags, const char*, void*) {}, nullptr);
    vips_block_untrusted_set(TRUE);
    vips_cache_set_max(0);
    vips_concurrency_set(1);
    return true;
  }();
  require<IoError>(ok, "image", "libvips does not start");
}

std::string take_vips_error() {
  char* buffer = vips_error_buffer_copy();  // and clears it
  const std::string_view text(buffer);
  std::string line = printable(text.substr(0, text.find('\n')));
  g_free(buffer);
  return line.empty() ? "damaged or truncated" : line;
}

}  // namespace weft
