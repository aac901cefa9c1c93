// Files that hold a model: weft's own safetensors, which say everything, and checkpoints that must be recognised.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "api/model_data.h"

namespace weft {

/// Throws as Model::load says.
ModelData read_model_file(const std::filesystem::path& path, const LoadOptions& options);
/// All but the weights as text, by key: "weft.family", "weft.config", "weft.labels", … each but the family JSON.
std::map<std::string, std::string> metadata_of(const ModelData& data);
/// One safetensors file with everything in it. Throws IoError.
void write_model_file(const std::filesystem::path& path, const ModelData& data);

/// What the published models want: ImageNet's normalisation; a 256 resize for 224, the crop's own size elsewhere.
Preprocess default_preprocess(const Architecture& architecture);

}  // namespace weft
