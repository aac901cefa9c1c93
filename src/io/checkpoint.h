// The one way in for weights: a PyTorch checkpoint or a safetensors file, told apart by content.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "io/mapped_file.h"
#include "weft/tensor.h"

namespace weft {

struct Checkpoint {
  std::string path;
  /// "PyTorch zip" or "safetensors".
  std::string format;
  /// Where the tensors were: "" for the top level, "model", "state_dict", "model_ema", …
  std::string section;
  /// All sections that hold tensors, in the file's order.
  std::vector<std::string> sections;
  /// By the names in the file; the prefix "module." of DataParallel is removed when every name has it.
  std::map<std::string, Tensor> tensors;
  /// An object. safetensors: the strings of __metadata__. PyTorch: all that is beside the chosen tensors (meta, epoch,
  /// config, CLASSES, …), with texts in place of what JSON cannot hold: "f32[3,4]" for a tensor.
  Json metadata = Json::object();
};

struct CheckpointOptions {
  /// Empty chooses: "model", else "state_dict", else the top level. "ema" means the first of "model_ema",
  /// "state_dict_ema", "ema_state_dict" and "ema"; averaged weights are never chosen unasked.
  std::string section;
};

/// Throws IoError for a file that is neither or is damaged, WeightError when it has no such section; the message lists
/// those that it has. Tensors are lent by the mapped file where possible.
Checkpoint read_checkpoint(const std::filesystem::path& path, const CheckpointOptions& options = {});
Checkpoint read_checkpoint(const FileBytes& file, const CheckpointOptions& options = {});

/// Whether no element is NaN or infinite; true for integers and bool.
bool all_finite(const Tensor& tensor);

}  // namespace weft
