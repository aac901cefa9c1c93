// The numerical rank of a matrix.
#pragma once

#include <cstdint>
#include <vector>

#include "core/threads.h"

namespace weft {

/// How many diagonal elements of R are above max(rows, columns) · 2^-23 of the largest in a Householder QR with column
/// pivoting (Businger and Golub 1965): below is what rounding the elements to f32 may make of a zero. `columns` holds
/// the matrix column by column, `rows` elements each, all finite.
std::int64_t numerical_rank(std::vector<double> columns, std::int64_t rows, const Workers& workers);

}  // namespace weft
