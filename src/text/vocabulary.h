// The tokens of a vocabulary: number → bytes, and bytes → number by a trie.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace weft::text {

/// Bounds on what a vocabulary file may hold. Published vocabularies have tokens of some hundred bytes, some megabytes
/// in all, and numbers up to some 300,000. The length also bounds how far a search for the longest token goes in vain.
inline constexpr std::size_t kMaxTokenBytes = 1024;
inline constexpr std::size_t kMaxVocabularyBytes = std::size_t{1} << 24;
inline constexpr std::int32_t kMaxToken = (1 << 24) - 1;

struct Token {
  std::int32_t number = 0;
  std::string bytes;
};

/// Number → bytes.
class Vocabulary {
 public:
  /// Text is cut into `tokens`; `others` are found by other means. Throws IoError "[place] …" for a token that is too
  /// long, negative or too large, or is there twice.
  Vocabulary(std::vector<Token> tokens, std::vector<Token> others, std::string_view place);

  /// One more than the largest number.
  std::int32_t size() const { return static_cast<std::int32_t>(begins_.size()) - 1; }
  /// For each byte the token that is this byte; size() + byte where there is none, so that any text can be told.
  const std::array<std::int32_t, 256>& byte_tokens() const { return byte_tokens_; }
  /// Empty for numbers left out; nothing for those that are no token.
  std::optional<std::string_view> bytes_of(std::int32_t token) const;

 private:
  std::string bytes_;
  std::vector<std::uint32_t> begins_;
  std::array<std::int32_t, 256> byte_tokens_;
};

/// Bytes → number. Children of a node lie side by side, in order.
class ByteTrie {
 public:
  static constexpr std::int32_t kNone = -1;
  struct Match {
    std::int32_t token = kNone;
    std::size_t length = 0;
  };

  /// Tokens without bytes are never found. Throws IoError "[place] …" for two with the same bytes.
  ByteTrie(std::vector<Token> tokens, std::string_view place);

  /// The longest token that `text` begins with, of those that `wanted` is true for.
  template <class Wanted>
  Match longest(std::string_view text, const Wanted& wanted) const {
    Match match;
    std::uint32_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node == 0) break;
      const std::int32_t token = nodes_[node].token;
      if (token != kNone && wanted(token)) match = {token, i + 1};
    }
    return match;
  }
  /// The token that is the whole text, or kNone.
  std::int32_t find(std::string_view text) const;
  /// Whether a token begins with this byte.
  bool begins(unsigned char byte) const { return roots_[byte] != 0; }

 private:
  struct Node {
    std::uint32_t first = 0;  // child; the root, which is no child, means none
    std::uint32_t children = 0;
    std::int32_t token = kNone;
  };
  std::uint32_t child(std::uint32_t node, unsigned char byte) const;

  std::vector<Node> nodes_;
  std::vector<std::uint8_t> labels_;  // by what byte a node is reached
  std::array<std::uint32_t, 256> roots_{};
};

}  // namespace weft::text
