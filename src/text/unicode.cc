#include "text/unicode.h"

#include <glib.h>

#include <algorithm>
#include <array>
#include <vector>

#include "core/format.h"

namespace weft::text {
namespace {

CharKind kind_of(char32_t code) {
  if ((code >= 0x09 && code <= 0x0D) || code == 0x85) return CharKind::kSpace;  // white space, yet control characters
  switch (g_unichar_type(code)) {
    case G_UNICODE_LOWERCASE_LETTER:
    case G_UNICODE_MODIFIER_LETTER:
    case G_UNICODE_OTHER_LETTER:
    case G_UNICODE_TITLECASE_LETTER:
    case G_UNICODE_UPPERCASE_LETTER:
      return CharKind::kLetter;
    case G_UNICODE_DECIMAL_NUMBER:
    case G_UNICODE_LETTER_NUMBER:
    case G_UNICODE_OTHER_NUMBER:
      return CharKind::kNumber;
    case G_UNICODE_LINE_SEPARATOR:
    case G_UNICODE_PARAGRAPH_SEPARATOR:
    case G_UNICODE_SPACE_SEPARATOR:
      return CharKind::kSpace;
    default:
      return CharKind::kOther;
  }
}

char32_t decode(std::string_view utf8) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(utf8[i]); };
  if (utf8.size() == 1) return byte(0);
  char32_t code = byte(0) & (0x7FU >> utf8.size());
  for (std::size_t i = 1; i < utf8.size(); ++i) code = code << 6 | (byte(i) & 0x3FU);
  return code;
}

struct Mark {
  char32_t code;
  int order;  // canonical combining class
};

// A stretch of text that no composition or reordering leaves, normalised.
class Normaliser {
 public:
  void add(char32_t code) {
    std::array<gunichar, G_UNICHAR_MAX_DECOMPOSITION_LENGTH> parts{};
    const std::size_t count = g_unichar_fully_decompose(code, FALSE, parts.data(), parts.size());
    for (std::size_t i = 0; i < count; ++i) marks_.push_back({parts[i], g_unichar_combining_class(parts[i])});
  }

  void take(std::string& out) {
    reorder();
    compose();
    for (const Mark& mark : marks_) append_utf8(mark.code, out);
    marks_.clear();
  }

 private:
  void reorder() {
    const auto starts = [](const Mark& mark) { return mark.order == 0; };
    for (auto begin = marks_.begin(); begin != marks_.end();) {
      begin = std::find_if_not(begin, marks_.end(), starts);
      const auto end = std::find_if(begin, marks_.end(), starts);
      std::stable_sort(begin, end, [](const Mark& a, const Mark& b) { return a.order < b.order; });
      begin = end;
    }
  }

  // Each mark goes into the last starter, unless one between them has the same class or is a starter.
  void compose() {
    std::size_t kept = 0;
    std::size_t starter = marks_.size();  // none yet
    int last = 0;                         // the class of what was kept last
    for (const Mark mark : marks_) {
      gunichar composed = 0;
      const bool adjacent = starter + 1 == kept;
      const bool reaches = starter < kept && (adjacent || last < mark.order);
      if (reaches && g_unichar_compose(marks_[starter].code, mark.code, &composed)) {
        marks_[starter].code = composed;
        continue;
      }
      if (mark.order == 0) starter = kept;
      last = mark.order;
      marks_[kept++] = mark;
    }
    marks_.resize(kept);
  }

  std::vector<Mark> marks_;
};

}  // namespace

Char first_char(std::string_view text) {
  static const auto kAscii = [] {
    std::array<CharKind, 0x80> kinds{};
    for (char32_t code = 0; code < kinds.size(); ++code) kinds[code] = kind_of(code);
    return kinds;
  }();
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < kAscii.size()) return {.code = lead, .length = 1, .kind = kAscii[lead]};
  const std::size_t length = utf8_length(text);
  if (length == 0) return {.code = kNoCode, .length = 1, .kind = CharKind::kOther};
  const char32_t code = decode(text.substr(0, length));
  return {.code = code, .length = static_cast<std::uint8_t>(length), .kind = kind_of(code)};
}

void append_utf8(char32_t code, std::string& out) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  const auto rest = [&](int shift) { put(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) return put(0xC0 | code >> 6), rest(0);
  if (code < 0x10000) return put(0xE0 | code >> 12), rest(6), rest(0);
  put(0xF0 | code >> 18), rest(12), rest(6), rest(0);
}

std::string nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  Normaliser stretch;
  while (!text.empty()) {
    const Char c = first_char(text);
    // ASCII goes into nothing before it, so that a new stretch begins.
    if (c.code == kNoCode || c.code < 0x80) stretch.take(out);
    if (c.code == kNoCode) {
      out += text[0];
    } else {
      stretch.add(c.code);
    }
    text.remove_prefix(c.length);
  }
  stretch.take(out);
  return out;
}

}  // namespace weft::text
