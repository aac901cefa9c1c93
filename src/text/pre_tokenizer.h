// Cuts text into words, which byte-level BPE does not join.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/threads.h"

namespace weft::text {

/// How text is cut.
enum class Cut : std::uint8_t {
  /// The expression of GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kGpt2,
  /// That of cl100k, with numbers cut after three digits:
  /// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
  /// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kCl100k,
  /// The same with each digit alone, as Qwen 2 has it.
  kQwen2,
  /// Each digit alone, what is between them as it is.
  kDigits,
  /// Runs of digits, and of what is none.
  kDigitRuns,
};

/// The length of the first piece of a text that is not empty. Takes time linear in it.
std::size_t first_piece(Cut cut, std::string_view text);

/// Calls `found` with each word: the text cut by the first of `cuts`, its pieces by the second, and so on.
void for_each_word(std::span<const Cut> cuts, std::string_view text, FunctionRef<void(std::string_view)> found);

}  // namespace weft::text
