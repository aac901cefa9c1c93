#include "text/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <limits>

#include "text/unicode.h"

namespace weft::text {
namespace {

constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();

bool is_line_end(const Char& c) { return c.code == '\n' || c.code == '\r'; }

// The end of the run of characters that `belongs` is true for, at most `most` of them, from `begin`.
template <class Belongs>
std::size_t run_end(std::string_view text, std::size_t begin, const Belongs& belongs, std::size_t most = kAll) {
  while (begin < text.size() && most-- > 0) {
    const Char c = first_char(text.substr(begin));
    if (!belongs(c)) break;
    begin += c.length;
  }
  return begin;
}

std::size_t kind_end(std::string_view text, std::size_t begin, CharKind kind, std::size_t most = kAll) {
  return run_end(
      text, begin, [kind](const Char& c) { return c.kind == kind; }, most);
}

// The length of 's, 't, 're, 've, 'm, 'll or 'd at the beginning; 0 when there is none.
std::size_t contraction(std::string_view text, bool any_case) {
  constexpr std::array<std::string_view, 7> kEndings = {"s", "t", "re", "ve", "m", "ll", "d"};
  if (text[0] != '\'') return 0;
  if (any_case && text.substr(1).starts_with("\u017F")) return 1 + std::string_view("\u017F").size();  // the long s
  const auto same = [any_case](char a, char b) { return a == b || (any_case && a == b - 'a' + 'A'); };
  for (const std::string_view ending : kEndings) {
    const std::string_view begins = text.substr(1, ending.size());
    if (std::ranges::equal(begins, ending, same)) return 1 + ending.size();
  }
  return 0;
}

// White space from the beginning, but for the last of several characters before a word, which is the word's.
std::size_t spaces(std::string_view text) {
  std::size_t end = 0;
  std::size_t last = 0;
  while (end < text.size()) {
    const Char c = first_char(text.substr(end));
    if (c.kind != CharKind::kSpace) break;
    last = end;
    end += c.length;
  }
  return end == text.size() || last == 0 ? end : last;
}

std::size_t gpt2_piece(std::string_view text) {
  if (const std::size_t length = contraction(text, false); length > 0) return length;
  const std::size_t space = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  const CharKind kind = first_char(text.substr(space)).kind;
  return kind == CharKind::kSpace ? spaces(text) : kind_end(text, space, kind);
}

std::size_t cl100k_piece(std::string_view text, std::size_t digits) {
  if (const std::size_t length = contraction(text, true); length > 0) return length;
  const Char first = first_char(text);
  const bool word_start = first.kind != CharKind::kNumber && !is_line_end(first);
  const std::size_t letters = word_start && first.kind != CharKind::kLetter ? first.length : 0;
  if (const std::size_t end = kind_end(text, letters, CharKind::kLetter); word_start && end > letters) return end;
  if (first.kind == CharKind::kNumber) return kind_end(text, 0, CharKind::kNumber, digits);
  const std::size_t space = text[0] == ' ' ? 1 : 0;
  if (const std::size_t end = kind_end(text, space, CharKind::kOther); end > space)
    return run_end(text, end, is_line_end);
  // \s*[\r\n]+ ends with the last end of a line within the white space.
  const std::string_view white = text.substr(0, kind_end(text, 0, CharKind::kSpace));
  const std::size_t line_end = white.find_last_of("\r\n");
  return line_end == white.npos ? spaces(text) : line_end + 1;
}

}  // namespace

std::size_t first_piece(Cut cut, std::string_view text) {
  switch (cut) {
    case Cut::kGpt2:
      return gpt2_piece(text);
    case Cut::kCl100k:
      return cl100k_piece(text, 3);
    case Cut::kQwen2:
      return cl100k_piece(text, 1);
    case Cut::kDigits:
    case Cut::kDigitRuns:
      break;
  }
  const bool digit = first_char(text).kind == CharKind::kNumber;
  const std::size_t most = digit && cut == Cut::kDigits ? 1 : kAll;
  return run_end(
      text, 0, [digit](const Char& c) { return (c.kind == CharKind::kNumber) == digit; }, most);
}

void for_each_word(std::span<const Cut> cuts, std::string_view text, FunctionRef<void(std::string_view)> found) {
  if (cuts.empty() && !text.empty()) return found(text);
  while (!text.empty()) {
    const std::size_t length = first_piece(cuts[0], text);
    for_each_word(cuts.subspan(1), text.substr(0, length), found);
    text.remove_prefix(length);
  }
}

}  // namespace weft::text
