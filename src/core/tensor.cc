#include "weft/tensor.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>

#include "core/format.h"
#include "core/half.h"

namespace weft {
namespace {

constexpr std::size_t kAlignment = 64;

std::shared_ptr<std::byte> allocate(std::size_t bytes) {
  auto* memory =
      static_cast<std::byte*>(::operator new (std::max<std::size_t>(bytes, 1), std::align_val_t{kAlignment}));
  return {memory, [](std::byte* p) { ::operator delete (p, std::align_val_t{kAlignment}); }};
}

// One byte from a file need not be 0 or 1, which a C++ bool must be.
struct Bool {
  std::uint8_t byte = 0;
};

// Calls f with a null pointer of the C++ type that stores `dtype`.
template <class F>
void with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF64:
      return f(static_cast<double*>(nullptr));
    case DType::kF32:
      return f(static_cast<float*>(nullptr));
    case DType::kF16:
      return f(static_cast<Half*>(nullptr));
    case DType::kBF16:
      return f(static_cast<BFloat16*>(nullptr));
    case DType::kI64:
      return f(static_cast<std::int64_t*>(nullptr));
    case DType::kI32:
      return f(static_cast<std::int32_t*>(nullptr));
    case DType::kI16:
      return f(static_cast<std::int16_t*>(nullptr));
    case DType::kI8:
      return f(static_cast<std::int8_t*>(nullptr));
    case DType::kU8:
      return f(static_cast<std::uint8_t*>(nullptr));
    case DType::kBool:
      return f(static_cast<Bool*>(nullptr));
  }
}

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;

template <class To, class From>
To convert(From value) {
  if constexpr (std::is_same_v<From, Bool>) {
    return convert<To>(static_cast<std::uint8_t>(value.byte != 0));
  } else if constexpr (kIsHalf<From>) {
    return convert<To>(to_float(value));
  } else if constexpr (std::is_same_v<To, Bool>) {
    return Bool{static_cast<std::uint8_t>(value != 0)};
  } else if constexpr (std::is_same_v<To, Half>) {
    return to_half(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return to_bfloat16(static_cast<float>(value));
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    // A value outside the integer's range has no defined conversion: saturate, NaN becomes 0.
    if (!(value == value)) return 0;
    if (value <= static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    if (value >= static_cast<From>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    return static_cast<To>(value);
  } else {
    return static_cast<To>(value);
  }
}

}  // namespace

std::size_t size_of(DType dtype) {
  std::size_t size = 0;
  with_type(dtype, [&](auto* p) { size = sizeof(*p); });
  return size;
}

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "f64";
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kI64:
      return "i64";
    case DType::kI32:
      return "i32";
    case DType::kI16:
      return "i16";
    case DType::kI8:
      return "i8";
    case DType::kU8:
      return "u8";
    case DType::kBool:
      return "bool";
  }
  return "?";
}

Shape::Shape(std::vector<std::int64_t> extents) : extents_(std::move(extents)) {
  bool overflow = false;
  bool empty = false;
  for (const std::int64_t extent : extents_) {
    require<ShapeError>(extent >= 0, "shape", "extents must be ≥ 0, got {}", str());
    empty = empty || extent == 0;
    overflow = __builtin_mul_overflow(elements_, extent, &elements_) || overflow;
  }
  if (empty) elements_ = 0;
  require<ShapeError>(!overflow || empty, "shape", "{} has more elements than 63 bits can count", str());
}

std::int64_t Shape::operator[](int axis) const {
  const int index = axis < 0 ? axis + rank() : axis;
  require<ShapeError>(index >= 0 && index < rank(), "shape", "{} has no axis {}", *this, axis);
  return extents_[static_cast<std::size_t>(index)];
}

std::string Shape::str() const { return fmt::format("[{}]", fmt::join(extents_, ",")); }

std::string TensorType::str() const { return fmt::format("{}{}", name_of(dtype), shape.str()); }

void detail::throw_wrong_dtype(DType expected, DType got) {
  fail<ShapeError>("tensor", "expected elements of type {}, got {}", name_of(expected), name_of(got));
}

Tensor::Tensor() : Tensor(TensorType{DType::kF32, Shape{0}}) {}

Tensor::Tensor(TensorType type) : type_(std::move(type)), writable_(true) {
  std::int64_t bytes = 0;
  const bool overflow = __builtin_mul_overflow(elements(), static_cast<std::int64_t>(size_of(dtype())), &bytes);
  require<ShapeError>(!overflow, "tensor", "{} is too large to store", type_);
  auto storage = allocate(static_cast<std::size_t>(bytes));
  data_ = storage.get();
  owner_ = std::move(storage);
}

Tensor Tensor::zeros(TensorType type) {
  Tensor out(std::move(type));
  std::memset(out.mutable_raw(), 0, out.bytes());
  return out;
}

Tensor Tensor::borrow(TensorType type, const std::byte* data, std::shared_ptr<const void> owner) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(data) % size_of(type.dtype) == 0;
  require<ShapeError>(aligned, "tensor", "borrowed storage of {} is not aligned to its element", type);
  Tensor out;
  out.type_ = std::move(type);
  out.owner_ = std::move(owner);
  out.data_ = data;
  out.writable_ = false;
  return out;
}

Tensor Tensor::of(std::span<const float> values, Shape shape) {
  require<ShapeError>(static_cast<std::int64_t>(values.size()) == shape.elements(), "tensor",
                      "{} values do not fill a tensor of shape {}", values.size(), shape);
  Tensor out(DType::kF32, std::move(shape));
  std::ranges::copy(values, out.mutable_data<float>().begin());
  return out;
}

std::byte* Tensor::mutable_raw() {
  require<Error>(writable_, "tensor", "borrowed storage is read-only; clone() the tensor to write to it");
  return const_cast<std::byte*>(data_);
}

Tensor Tensor::reshaped(Shape shape) const {
  require<ShapeError>(shape.elements() == elements(), "tensor", "cannot reshape {} to {}", type_, shape);
  Tensor out = *this;
  out.type_.shape = std::move(shape);
  return out;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == this->dtype()) return *this;
  Tensor out(dtype, shape());
  with_type(this->dtype(), [&](auto* from_null) {
    using From = std::remove_pointer_t<decltype(from_null)>;
    with_type(dtype, [&](auto* to_null) {
      using To = std::remove_pointer_t<decltype(to_null)>;
      const auto* from = reinterpret_cast<const From*>(data_);
      auto* to = reinterpret_cast<To*>(out.mutable_raw());
      for (std::int64_t i = 0; i < elements(); ++i) to[i] = convert<To>(from[i]);
    });
  });
  return out;
}

Tensor Tensor::clone() const {
  Tensor out(type_);
  std::memcpy(out.mutable_raw(), data_, bytes());
  return out;
}

}  // namespace weft
