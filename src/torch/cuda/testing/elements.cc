#include "torch/cuda/testing/elements.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/half.h"

namespace weft::cuda::testing {

std::string_view name_of(Element type) {
  constexpr std::string_view kNames[] = {"f32", "f64", "bf16", "f16"};
  return kNames[static_cast<int>(type)];
}

std::size_t bytes_of(Element type) { return type == Element::kF64 ? 8 : type == Element::kF32 ? 4 : 2; }

std::vector<std::byte> encoded(const Tensor& tensor, Element type) {
  const auto elements = [&](auto encode) {
    using Out = decltype(encode(0.0F));
    std::vector<std::byte> bytes(sizeof(Out) * static_cast<std::size_t>(tensor.elements()));
    for (std::size_t i = 0; i < static_cast<std::size_t>(tensor.elements()); ++i) {
      const Out x = encode(tensor.data<float>()[i]);
      std::memcpy(bytes.data() + i * sizeof(Out), &x, sizeof(Out));
    }
    return bytes;
  };
  switch (type) {
    case Element::kF64:
      return elements([](float x) { return double{x}; });
    case Element::kBF16:
      return elements([](float x) { return to_bfloat16(x); });
    case Element::kF16:
      return elements([](float x) { return to_half(x); });
    case Element::kF32:
      break;
  }
  return elements([](float x) { return x; });
}

Tensor decoded(const std::vector<std::byte>& bytes, Element type, const Shape& shape) {
  Tensor out(DType::kF64, shape);
  const auto elements = [&](auto decode, auto in) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(out.elements()); ++i) {
      std::memcpy(&in, bytes.data() + i * sizeof(in), sizeof(in));
      out.mutable_data<double>()[i] = decode(in);
    }
    return out;
  };
  switch (type) {
    case Element::kF64:
      return elements([](double x) { return x; }, double{});
    case Element::kBF16:
      return elements([](weft::BFloat16 x) { return double{to_float(x)}; }, weft::BFloat16{});
    case Element::kF16:
      return elements([](weft::Half x) { return double{to_float(x)}; }, weft::Half{});
    case Element::kF32:
      break;
  }
  return elements([](float x) { return double{x}; }, float{});
}

Tensor rounded(const Tensor& tensor, Element type) { return decoded(encoded(tensor, type), type, tensor.shape()); }

double storing_error(Element type) { return type == Element::kBF16 ? 0x1p-8 : type == Element::kF16 ? 0x1p-11 : 0; }

double largest_of(const Tensor& x) {
  double largest = 0;
  for (const double value : x.data<double>()) largest = std::max(largest, std::abs(value));
  return largest;
}

double difference(const Tensor& got, const Tensor& want) {
  double largest = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(want.elements()); ++i) {
    const double a = got.data<double>()[i], b = want.data<double>()[i];
    if (!std::isfinite(a) && std::isfinite(b)) return std::numeric_limits<double>::infinity();
    if (std::isfinite(b)) largest = std::max(largest, std::abs(a - b));
  }
  return largest;
}

}  // namespace weft::cuda::testing
