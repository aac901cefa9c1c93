// The safetensors format: https://huggingface.co/docs/safetensors
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/mapped_file.h"
#include "weft/tensor.h"

namespace weft {

/// Tensors by name; in a file that is read, in the order of their data.
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

struct SafetensorsFile {
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;
};

/// Whether the bytes begin as a safetensors file does: a header length and a JSON object.
bool is_safetensors(std::span<const std::byte> bytes);

/// Reads a file whose tensors are lent by it where they are aligned, else copied. Validates all that the format
/// promises: header within 100 MB and the file, one JSON object without repeated names, known dtypes, shapes that match
/// the byte ranges, ranges that cover the data without gap or overlap. Throws IoError.
SafetensorsFile read_safetensors(const FileBytes& file);

/// Writes the tensors in this order, whole or not at all. Names and metadata must be UTF-8. Throws IoError; ConfigError
/// for a name that occurs twice or is "__metadata__".
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace weft
