// FNV-1a: tells things apart that nobody made alike on purpose. The same on every machine.
#pragma once

#include <cstdint>

namespace weft {

class Hash {
 public:
  void add(std::uint64_t value) { value_ = (value_ ^ value) * 0x100000001b3; }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

}  // namespace weft
