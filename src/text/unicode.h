// What tokenisers must know of Unicode, on bytes that need not be UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace weft::text {

/// \p{L}, \p{N}, \s (the property White_Space), and all else: punctuation, symbols, marks, and bytes that are no UTF-8.
enum class CharKind : std::uint8_t { kLetter, kNumber, kSpace, kOther };

/// A character, or a byte that begins none: that is kOther, 1 byte long, and has kNoCode.
struct Char {
  char32_t code;
  std::uint8_t length;
  CharKind kind;
};
inline constexpr char32_t kNoCode = 0xFFFFFFFF;

/// The first character of a text that is not empty.
Char first_char(std::string_view text);

/// The UTF-8 of a code point: not a surrogate, at most U+10FFFF.
void append_utf8(char32_t code, std::string& out);

/// Normalisation form C (Unicode Standard Annex 15), by the Unicode version of GLib. Bytes that are no UTF-8 stay as
/// they are.
std::string nfc(std::string_view text);

}  // namespace weft::text
