// The fields of a struct as data.
#pragma once

#include <string_view>

namespace weft {

/// A named field, for printing and serialising: `static constexpr std::tuple kFields{Field{"eps", &LayerNorm::eps}};`
template <class A, class T>
struct Field {
  std::string_view name;
  T A::*member;
};
template <class A, class T>
Field(const char*, T A::*) -> Field<A, T>;

}  // namespace weft
