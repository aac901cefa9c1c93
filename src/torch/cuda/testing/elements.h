// Tensors as the bytes that a kernel reads, and back.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "torch/cuda/kernels.h"
#include "weft/tensor.h"

namespace weft::cuda::testing {

constexpr Element kTypes[] = {Element::kF32, Element::kF64, Element::kBF16, Element::kF16};

std::string_view name_of(Element type);
std::size_t bytes_of(Element type);

/// What numbers beside elements of this type are: f32, f64 for kF64.
constexpr Element real_of(Element type) { return type == Element::kF64 ? type : Element::kF32; }

/// The elements of an f32 tensor as those of a type.
std::vector<std::byte> encoded(const Tensor& tensor, Element type);
/// As f64.
Tensor decoded(const std::vector<std::byte>& bytes, Element type, const Shape& shape);
Tensor rounded(const Tensor& tensor, Element type);

/// The largest error that storing makes, relative to what is stored.
double storing_error(Element type);

double largest_of(const Tensor& x);
/// The largest |got − want| of f64 tensors; infinite when a value is not finite where `want` is.
double difference(const Tensor& got, const Tensor& want);

}  // namespace weft::cuda::testing
