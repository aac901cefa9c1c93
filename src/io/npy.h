// NumPy's .npy files: one array each.
#pragma once

#include <filesystem>

#include "io/mapped_file.h"
#include "weft/tensor.h"

namespace weft {

/// Reads formats 1, 2 and 3 with elements f8, f4, f2, i8, i4, i2, i1, u1 or b1, little-endian, in C or Fortran order
/// (the latter is transposed to row-major). The tensor owns its memory. Throws IoError.
Tensor read_npy(const std::filesystem::path& path);
Tensor read_npy(const FileBytes& file);

/// Writes format 1 in C order, whole or not at all. Throws IoError; UnsupportedError for bf16, which NumPy does not
/// have.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

}  // namespace weft
