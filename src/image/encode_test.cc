#include "image/encode.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

TEST(EncodePng, ComesBackByDecoding) {
  for (const std::int64_t channels : {1, 3}) {
    Image image{.height = 5, .width = 300, .channels = channels, .pixels = {}};
    for (std::int64_t i = 0; i < 5 * 300 * channels; ++i)
      image.pixels.push_back(static_cast<std::uint8_t>(i * 37 % 256));
    const std::vector<std::byte> bytes = encode_png(image);
    const Image back = decode_image(bytes, "back");
    ASSERT_EQ(back.height, 5);
    ASSERT_EQ(back.width, 300);
    for (std::size_t i = 0; i < back.pixels.size(); ++i) {  // decoding makes RGB of grey
      ASSERT_EQ(back.pixels[i], image.pixels[channels == 3 ? i : i / 3]) << i;
    }
  }
}

TEST(EncodePng, RefusesWhatIsNoPicture) {
  EXPECT_THROW(encode_png({.height = 2, .width = 2, .channels = 3, .pixels = {1, 2, 3}}), ShapeError);
  EXPECT_THROW(encode_png({.height = 0, .width = 2, .channels = 3, .pixels = {}}), ShapeError);
  EXPECT_THROW(encode_png({.height = 1, .width = 1, .channels = 2, .pixels = {1, 2}}), ShapeError);
}

}  // namespace
}  // namespace weft
