// How a training run went, as a picture.
#pragma once

#include <filesystem>

namespace weft::cli {

/// Draws the log of a run's folder into its curves.svg: loss, accuracy and learning rate over steps. Throws IoError.
void draw_training(const std::filesystem::path& run);

}  // namespace weft::cli
