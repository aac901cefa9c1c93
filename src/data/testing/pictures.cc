#include "data/testing/pictures.h"

#include "core/random.h"

namespace weft::testing {

Image noise_picture(std::int64_t height, std::int64_t width, std::uint64_t seed) {
  Image image{height, width, 3, std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * 3))};
  Random random({seed});
  for (std::uint8_t& pixel : image.pixels) pixel = static_cast<std::uint8_t>(random.below(256));
  return image;
}

std::string cifar_record(const Image& image, int label) {
  std::string text(1, static_cast<char>(label));
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t i = c; i < image.pixels.size(); i += 3) text += static_cast<char>(image.pixels[i]);
  }
  return text;
}

NoiseDataset::NoiseDataset(std::int64_t size, int classes, std::int64_t side, std::int64_t bad)
    : size_(size), side_(side), bad_(bad) {
  for (int i = 0; i < classes; ++i) classes_.push_back("class " + std::to_string(i));
}

Image NoiseDataset::image(std::int64_t i) const {
  if (i == bad_) throw IoError("[noise] a picture made to fail");
  return noise_picture(side_, side_, static_cast<std::uint64_t>(i));
}

}  // namespace weft::testing
