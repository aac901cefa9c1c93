// What calls in a pickle yield: plain data and descriptions of tensors.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/pickle.h"
#include "io/pickle_globals.h"

namespace weft::pickle {

class ObjectBuilder {
 public:
  ObjectBuilder(Document& document, std::size_t input_bytes, std::string_view place);

  /// The value of entry(*args).
  Value call(const GlobalEntry& entry, const std::vector<Value>& args);
  /// object.__setstate__(state).
  void build(const Value& object, const Value& state);
  /// torch.save's persistent id: ("storage", class, key, location, elements).
  Value storage(const Value& id);

  Text own(std::string text);
  Sequence* sequence(std::vector<Value> items);
  Dict* dict();

 private:
  using Args = std::vector<Value>;

  // The argument as a T; fails with the function's name when it is something else or absent.
  template <class T>
  T argument(const GlobalEntry& entry, const Args& args, std::size_t index) const;
  // Counts bytes that are copied from one value into another, for which a short pickle could ask again and again.
  void charge(std::size_t bytes);
  void update(Dict& to, const Value& from);
  Value tensor(const GlobalEntry& entry, const Args& args, DType dtype);
  Value rebuilt_tensor(const GlobalEntry& entry, const Args& args);
  Value called_dict(const GlobalEntry& entry, const Args& args);
  Value from_type(const GlobalEntry& entry, const Args& args);
  Value reconstructed(const GlobalEntry& entry, const Args& args);
  Value joined(const Args& args, std::string_view separator, const GlobalEntry& entry);
  Value numpy_scalar(const GlobalEntry& entry, const Args& args);
  Value encoded(const GlobalEntry& entry, const Args& args);

  Document& document_;
  std::size_t budget_;
  std::string_view place_;
};

}  // namespace weft::pickle
