// A text as one sequence of tokens, and the windows of it that a language model learns from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "io/mapped_file.h"
#include "weft/tensor.h"
#include "weft/text.h"

namespace weft {

/// Tokens in memory, at least two. Immutable: all methods may be called from several threads at once.
class TokenData {
 public:
  /// Opens what `path` is:
  /// - an array of numbers (.npy, told by its content; one axis, any whole numbers that read_npy knows);
  /// - raw 16-bit numbers, little-endian, as nanoGPT writes them (told by the name: *.bin);
  /// - any other file is text, any bytes, which `tokenizer` turns into tokens: all at once, special tokens of the
  ///   vocabulary found where the text spells them. Text of single bytes stays the file, mapped.
  /// Throws IoError for what is missing, damaged, or not whole numbers from 0; ConfigError for text without a
  /// tokenizer.
  static TokenData open(const std::filesystem::path& path, const std::optional<Tokenizer>& tokenizer);

  /// What messages call it: the path that it was opened by.
  const std::string& name() const { return name_; }
  std::int64_t size() const;
  std::int32_t largest() const { return largest_; }
  /// Of all tokens in their order.
  std::uint64_t fingerprint() const { return fingerprint_; }
  /// Tokens `begin` … begin + out.size() − 1, which must be there.
  void copy(std::int64_t begin, std::span<std::int64_t> out) const;

 private:
  using Numbers =
      std::variant<std::span<const std::uint8_t>, std::span<const std::uint16_t>, std::vector<std::int32_t>>;

  TokenData(std::string name, Numbers numbers, std::shared_ptr<const void> owner = nullptr);

  std::string name_;
  Numbers numbers_;
  std::shared_ptr<const void> owner_;  // of what is not a vector
  std::int32_t largest_ = 0;
  std::uint64_t fingerprint_ = 0;
};

/// Windows to learn from in one pass: as many tokens, and of each the one that follows.
struct TokenWindows {
  Tensor tokens;   ///< i64 [B,T]
  Tensor targets;  ///< i64 [B,T]
};

/// Of `batch` windows of `length` tokens number `first` … in pass `pass` of a training: each begins anywhere in the
/// text, a function of (seed, pass, its number). So the windows of several processes, numbered one behind the other,
/// are those of one. Throws ConfigError for a text of less than length + 1 tokens.
TokenWindows draw_windows(const TokenData& data, std::int64_t length, std::int64_t batch, std::uint64_t seed,
                          std::int64_t pass, std::int64_t first);

/// The consecutive windows of a text that it is judged by: each token but the first is a target once, but for the last
/// ones that fill no window.
std::int64_t window_count(const TokenData& data, std::int64_t length);
/// Window i of them, B = 1.
TokenWindows window_at(const TokenData& data, std::int64_t length, std::int64_t i);

}  // namespace weft
