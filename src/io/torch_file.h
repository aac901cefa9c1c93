// Files of torch.save (PyTorch ≥ 1.6): a zip archive of one pickle and one entry per storage.
#pragma once

#include <map>
#include <span>
#include <string>

#include "io/mapped_file.h"
#include "io/pickle.h"
#include "weft/tensor.h"

namespace weft {

/// Whether the bytes begin as any of PyTorch's formats do; older ones are told from others so as to say what they are.
bool is_torch_file(std::span<const std::byte> bytes);

class TorchFile {
 public:
  /// Throws IoError for anything but a sound archive of tensors and plain data, with the remedy where there is one:
  /// files from before PyTorch 1.6, TorchScript, compressed entries, big-endian data, pickles that call functions.
  explicit TorchFile(FileBytes file);

  const pickle::Value& root() const { return document_.root; }
  std::size_t pickle_bytes() const { return pickle_bytes_; }

  /// The tensor: lent by the file when it is contiguous and aligned there, else a copy in row-major order. Every bound
  /// is checked against the storage's true size. All copies of one file together may take max(64 MiB, 4 × the file), so
  /// that expanded (stride 0) views cannot exhaust the memory. Throws IoError; `name` is the tensor's in messages.
  Tensor tensor(const pickle::TensorRef& ref, std::string_view name);

 private:
  std::span<const std::byte> bytes_of(const pickle::StorageRef& storage, std::string_view name) const;

  FileBytes file_;
  std::map<std::string, std::span<const std::byte>> entries_;
  std::string folder_;  // "archive/"
  pickle::Document document_;
  std::size_t pickle_bytes_ = 0;
  std::size_t copy_budget_ = 0;
};

}  // namespace weft
