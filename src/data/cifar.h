// The CIFAR-10 binary format (Krizhevsky 2009): records of a label and the red, green and blue planes of a 32 × 32
// picture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace weft {

inline constexpr std::int64_t kCifarSide = 32;
inline constexpr std::size_t kCifarPlane = kCifarSide * kCifarSide;
inline constexpr std::size_t kCifarRecord = 1 + 3 * kCifarPlane;
inline constexpr int kCifarClasses = 10;

/// airplane … truck
const std::vector<std::string>& cifar_class_names();

/// The label of record `index` of `name`. Throws IoError unless it is 0 … 9.
int cifar_label(std::span<const std::byte, kCifarRecord> record, const std::string& name, std::int64_t index);
Image cifar_image(std::span<const std::byte, kCifarRecord> record);

/// The records of these files, one after the other. Throws IoError.
std::shared_ptr<const Dataset> open_cifar(const std::string& name, const std::vector<std::filesystem::path>& files);

}  // namespace weft
