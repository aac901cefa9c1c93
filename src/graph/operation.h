// Operations: what a node of a graph computes, independent of who executes it.
//
// An operator is a plain struct of attributes with four functions beside it, found by argument-dependent lookup:
//
//   // The types of the results. Throws ShapeError.
//   std::vector<TensorType> infer(const A&, std::span<const TensorType> in);
//   // Naive loops in double precision: all tensors are f64.
//   void reference(const A&, std::span<const Tensor> in, std::span<Tensor> out);
//   // Multiply-accumulates.
//   std::int64_t macs(const A&, std::span<const TensorType> in);
//
// and make_kernel, its CPU kernel (kernel/kernel.h). One that lacks a function does not compile (here) or does not link
// (the kernel).
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <concepts>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <typeindex>
#include <vector>

#include "core/enum_names.h"
#include "core/field.h"
#include "core/format.h"
#include "weft/tensor.h"

namespace weft {

template <class A>
concept OpAttributes = std::equality_comparable<A> && requires(const A& attributes, std::span<const TensorType> types,
                                                               std::span<const Tensor> in, std::span<Tensor> out) {
  { A::kName } -> std::convertible_to<std::string_view>;
  A::kFields;
  { infer(attributes, types) } -> std::same_as<std::vector<TensorType>>;
  { macs(attributes, types) } -> std::same_as<std::int64_t>;
  { reference(attributes, in, out) } -> std::same_as<void>;
};

/// What an attribute prints as: enumerators by name_of, everything else as it is.
template <class T>
auto printable_field(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return name_of(value);
  } else {
    return value;
  }
}

/// An operator whose result is its input's memory under another shape declares `static constexpr bool kIsView = true`.
template <class A>
constexpr bool kIsViewOf = requires {
  requires A::kIsView;
};

namespace detail {

struct OperationInterface {
  virtual ~OperationInterface() = default;
  virtual std::string_view name() const = 0;
  virtual std::string attributes() const = 0;
  virtual std::vector<TensorType> infer_types(std::span<const TensorType>) const = 0;
  virtual std::int64_t count_macs(std::span<const TensorType>) const = 0;
  virtual void run_reference(std::span<const Tensor>, std::span<Tensor>) const = 0;
  virtual bool is_view() const = 0;
  virtual std::type_index type() const = 0;
};

template <class A>
struct OperationHolder final : OperationInterface {
  explicit OperationHolder(A attributes) : value(std::move(attributes)) {}
  std::string_view name() const override { return A::kName; }
  std::string attributes() const override {
    std::string text;
    std::apply(
        [&](const auto&... field) {
          ((text += fmt::format("{}{}={}", text.empty() ? "" : ", ", field.name, printable_field(value.*field.member))),
           ...);
        },
        A::kFields);
    return text;
  }
  std::vector<TensorType> infer_types(std::span<const TensorType> in) const override { return infer(value, in); }
  std::int64_t count_macs(std::span<const TensorType> in) const override { return macs(value, in); }
  void run_reference(std::span<const Tensor> in, std::span<Tensor> out) const override { reference(value, in, out); }
  bool is_view() const override { return kIsViewOf<A>; }
  std::type_index type() const override { return typeid(A); }
  A value;
};

}  // namespace detail

/// Any operator's attributes, immutable and cheap to copy.
class Operation {
 public:
  template <OpAttributes A>
  Operation(A attributes)  // NOLINT(google-explicit-constructor): attributes are operations
      : self_(std::make_shared<const detail::OperationHolder<A>>(std::move(attributes))) {}

  std::string_view name() const { return self_->name(); }
  /// "eps=1e-05"
  std::string attributes() const { return self_->attributes(); }
  std::vector<TensorType> infer(std::span<const TensorType> in) const { return self_->infer_types(in); }
  std::int64_t macs(std::span<const TensorType> in) const { return self_->count_macs(in); }
  void reference(std::span<const Tensor> in, std::span<Tensor> out) const { self_->run_reference(in, out); }
  bool is_view() const { return self_->is_view(); }
  std::type_index type() const { return self_->type(); }

  /// The attributes when this is an A, otherwise null.
  template <class A>
  const A* as() const {
    return type() == std::type_index(typeid(A)) ? &static_cast<const detail::OperationHolder<A>&>(*self_).value
                                                : nullptr;
  }

 private:
  std::shared_ptr<const detail::OperationInterface> self_;
};

}  // namespace weft
