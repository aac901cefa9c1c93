// A reader of Python pickles that builds plain data and descriptions of tensors, and never calls anything.
//
// A pickle is a program for a small stack machine whose GLOBAL opcode may name any function of any Python module. Here
// every name that checkpoints have a good reason to contain stands in one table (pickle_globals.cc) with the plain
// value that it becomes; all others are an error. Memory is bounded: an object takes at most about a hundred bytes per
// byte of the pickle, and the few operations that copy share a budget.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "weft/tensor.h"

namespace weft::pickle {

struct Opaque;
struct Sequence;
struct Dict;
struct StorageRef;
struct TensorRef;
struct GlobalEntry;

struct None {};
struct Text {
  std::string_view value;  // UTF-8
};
struct Bytes {
  std::string_view value;
};
/// A function or class of the table.
struct Global {
  const GlobalEntry* entry;
};

/// A handle: objects live in the Document, so that shared and cyclic values cost nothing and need no recursion to free.
using Value = std::variant<None, bool, std::int64_t, double, Text, Bytes, Global, const Opaque*, Sequence*, Dict*,
                           const StorageRef*, const TensorRef*>;

/// A list, a tuple or a set.
struct Sequence {
  std::vector<Value> items;
};

/// A dictionary in order of insertion; the last entry with a key counts. `attributes` marks an object such as
/// argparse.Namespace whose attributes became the entries.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  bool attributes = false;

  /// The value under a text key; null when there is none.
  const Value* find(std::string_view key) const;
};

/// Something that is kept only by its type's name, such as "numpy.ndarray". `detail` is the code of a numpy.dtype.
struct Opaque {
  std::string_view type;
  std::string_view detail = {};
};

/// One storage of torch.save: the file's data entry `key`. An untyped one counts its elements in bytes.
struct StorageRef {
  std::string_view key;
  std::optional<DType> dtype;
  std::int64_t elements = 0;
};

/// A strided view of a storage; offset and strides in elements. Nothing about it has been checked against the storage
/// but the number of axes, which is the same for sizes and strides.
struct TensorRef {
  const StorageRef* storage = nullptr;
  DType dtype = DType::kF32;
  std::int64_t offset = 0;
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;
};

/// What a pickle holds. Texts point into the bytes that were read.
struct Document {
  Value root;
  std::deque<Opaque> opaques;
  std::deque<Sequence> sequences;
  std::deque<Dict> dicts;
  std::deque<StorageRef> storages;
  std::deque<TensorRef> tensors;
  std::deque<std::string> texts;
};

inline constexpr std::size_t kMaxPickleBytes = std::size_t{1} << 28;
inline constexpr std::size_t kMaxPickleSteps = std::size_t{1} << 23;
inline constexpr std::size_t kMaxTensorRank = 64;

/// Reads protocols 0 to 5. Throws IoError "[place] …" for a damaged pickle, for one that wants to call or build
/// anything that is not in the table, and beyond the bounds above.
Document read(std::span<const std::byte> bytes, std::string_view place);

}  // namespace weft::pickle
