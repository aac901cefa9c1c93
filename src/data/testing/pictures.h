// Pictures and data sets for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace weft::testing {

/// Noise that depends on the arguments alone.
Image noise_picture(std::int64_t height, std::int64_t width, std::uint64_t seed);

/// A record of the CIFAR-10 binary format.
std::string cifar_record(const Image& image, int label);

/// Noise of one size, held in memory: picture i has the label i % classes. Reading `bad` fails with an IoError.
class NoiseDataset : public Dataset {
 public:
  NoiseDataset(std::int64_t size, int classes, std::int64_t side, std::int64_t bad = -1);

  std::int64_t size() const override { return size_; }
  Image image(std::int64_t i) const override;
  int label(std::int64_t i) const override { return static_cast<int>(i % classes()); }
  std::string picture_name(std::int64_t i) const override { return "noise#" + std::to_string(i); }
  const std::string& name() const override { return name_; }
  bool numbered() const override { return false; }
  const std::vector<std::string>& class_names() const override { return classes_; }

 private:
  std::int64_t size_;
  std::int64_t side_;
  std::int64_t bad_;
  std::string name_ = "noise";
  std::vector<std::string> classes_;
};

}  // namespace weft::testing
