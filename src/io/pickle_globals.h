// The Python names that a checkpoint may mention, and what becomes of each.
#pragma once

#include <optional>
#include <string_view>

#include "weft/tensor.h"

namespace weft::pickle {

/// What a call of the name yields.
enum class GlobalKind {
  kDict,           // a dictionary
  kAttributes,     // an object whose attributes become a dictionary
  kFactory,        // collections.defaultdict: a dictionary; its argument is dropped
  kSequence,       // list, tuple, set, torch.Size: the argument's items
  kTensorV1,       // (storage, offset, sizes, strides)
  kTensorV2,       // (storage, offset, sizes, strides, requires_grad, hooks[, metadata])
  kTensorV3,       // (storage, offset, sizes, strides, requires_grad, hooks, dtype[, metadata])
  kParameter,      // (tensor, requires_grad, hooks[, state]): the tensor
  kFromType,       // (function, type, arguments, state): the function's result
  kStorage,        // named in persistent ids, never called; `dtype` is empty for an untyped one
  kDType,          // a value such as torch.float32, never called
  kDevice,         // ("cuda", 0): a text
  kPath,           // ("a", "b"): the text "a/b"
  kNumpyDType,     // ("f8", False, True)
  kNumpyScalar,    // (dtype, bytes): a number
  kEncode,         // _codecs.encode(text, "latin1"): bytes
  kReconstructor,  // copyreg._reconstructor(class, base, state): an object of the class
  kOpaque,         // kept only as the type's name
  kClass,          // mentioned as an argument, never called
};

struct GlobalEntry {
  std::string_view module;
  std::string_view name;
  GlobalKind kind;
  std::optional<DType> dtype = std::nullopt;
};

/// Null for a name that is not in the table.
const GlobalEntry* find_global(std::string_view module, std::string_view name);

}  // namespace weft::pickle
