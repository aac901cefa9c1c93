// Both kinds of vocabulary, told by content as everywhere; whatever is read must keep the bytes that it is given.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "weft/error.h"
#include "weft/text.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const weft::Tokenizer tokenizer = weft::Tokenizer::load(std::as_bytes(std::span(data, size)), "x");
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto tokens = tokenizer.encode(text, {.special = size % 2 == 0});
    const std::string back = tokenizer.decode(tokens);
    // Prefix spaces may be there in addition.
    if (back != text && back.size() <= text.size()) std::abort();
    (void)tokenizer.encode(text, {.normalize = true});
  } catch (const weft::Error&) {
  }
  return 0;
}
