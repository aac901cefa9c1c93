#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "io/json.h"
#include "weft/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const weft::Json json = weft::parse_json({reinterpret_cast<const char*>(data), size}, "x");
    // What was read can be written and read again, to the same text.
    const std::string text = json.dump();
    if (weft::parse_json(text, "x").dump() != text) std::abort();
  } catch (const weft::Error&) {
  }
  return 0;
}
