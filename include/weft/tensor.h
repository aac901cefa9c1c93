// Shapes, element types and dense tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weft/api.h"
#include "weft/error.h"

namespace weft {

/// Element types. kF16 is IEEE half precision, kBF16 is bfloat16; kBool is one byte, 0 or 1.
enum class DType : std::uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

/// Bytes of one element.
WEFT_API std::size_t size_of(DType dtype);

/// Short name: "f32", "bf16", "i64", …
WEFT_API std::string_view name_of(DType dtype);

/// Extents of a tensor, outermost first. Every extent is ≥ 0; rank 0 is a scalar.
class WEFT_API Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) : Shape(std::vector<std::int64_t>(extents)) {}
  /// Throws ShapeError for a negative extent or when the number of elements overflows 63 bits.
  explicit Shape(std::vector<std::int64_t> extents);

  int rank() const { return static_cast<int>(extents_.size()); }
  /// Extent `axis`; a negative axis counts from the end. Throws ShapeError when there is no such axis.
  std::int64_t operator[](int axis) const;
  /// Product of all extents (1 for a scalar).
  std::int64_t elements() const { return elements_; }
  std::span<const std::int64_t> extents() const { return extents_; }
  /// "[2,196,192]"
  std::string str() const;

  bool operator==(const Shape&) const = default;

 private:
  std::vector<std::int64_t> extents_;
  std::int64_t elements_ = 1;
};

/// What a tensor looks like: element type and shape.
struct WEFT_API TensorType {
  DType dtype = DType::kF32;
  Shape shape;

  std::size_t bytes() const { return size_of(dtype) * static_cast<std::size_t>(shape.elements()); }
  /// "f32[2,196,192]"
  std::string str() const;
  bool operator==(const TensorType&) const = default;
};

namespace detail {
template <class T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType kValue = DType::kF64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType kValue = DType::kF32;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType kValue = DType::kI64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType kValue = DType::kI32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType kValue = DType::kU8;
};
[[noreturn]] WEFT_API void throw_wrong_dtype(DType expected, DType got);
}  // namespace detail

/// A dense, row-major tensor. Copies share the storage (as in PyTorch and NumPy); clone() copies it.
/// Storage that weft allocates is aligned to 64 bytes; borrowed storage is aligned to its element.
class WEFT_API Tensor {
 public:
  /// An empty f32 tensor of shape [0].
  Tensor();
  /// Uninitialised storage. Throws ShapeError when the byte count overflows, std::bad_alloc when memory is short.
  explicit Tensor(TensorType type);
  Tensor(DType dtype, Shape shape) : Tensor(TensorType{dtype, std::move(shape)}) {}

  static Tensor zeros(TensorType type);
  /// Memory that `owner` keeps alive (a mapped file, a caller's buffer). It must not change while borrowed.
  static Tensor borrow(TensorType type, const std::byte* data, std::shared_ptr<const void> owner);
  /// A tensor with these values. Throws ShapeError when their number is not that of the shape.
  static Tensor of(std::span<const float> values, Shape shape);

  const TensorType& type() const { return type_; }
  DType dtype() const { return type_.dtype; }
  const Shape& shape() const { return type_.shape; }
  std::int64_t elements() const { return type_.shape.elements(); }
  std::size_t bytes() const { return type_.bytes(); }

  const std::byte* raw() const { return data_; }
  /// Throws Error for borrowed storage, which is read-only.
  std::byte* mutable_raw();

  /// The elements. Throws ShapeError when T is not the element type.
  template <class T>
  std::span<const T> data() const {
    check_dtype(detail::DTypeOf<T>::kValue);
    return {reinterpret_cast<const T*>(data_), static_cast<std::size_t>(elements())};
  }
  template <class T>
  std::span<T> mutable_data() {
    check_dtype(detail::DTypeOf<T>::kValue);
    return {reinterpret_cast<T*>(mutable_raw()), static_cast<std::size_t>(elements())};
  }

  /// Same storage, other shape of as many elements. Throws ShapeError otherwise.
  Tensor reshaped(Shape shape) const;
  /// Converted to another element type (the same storage when the type is the same). Floating values round to
  /// nearest even; bool and integers convert by value.
  Tensor to(DType dtype) const;
  Tensor clone() const;

 private:
  void check_dtype(DType expected) const {
    if (type_.dtype != expected) detail::throw_wrong_dtype(expected, type_.dtype);
  }

  TensorType type_;
  std::shared_ptr<const void> owner_;
  const std::byte* data_ = nullptr;
  bool writable_ = false;
};

}  // namespace weft
