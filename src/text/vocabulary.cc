#include "text/vocabulary.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "core/format.h"

namespace weft::text {

namespace {

// All bytes in a row, so that each can be shown as a text.
const std::string& all_bytes() {
  static const std::string bytes = [] {
    std::string all(256, '\0');
    std::iota(all.begin(), all.end(), '\0');
    return all;
  }();
  return bytes;
}

}  // namespace

Vocabulary::Vocabulary(std::vector<Token> tokens, std::vector<Token> others, std::string_view place) {
  byte_tokens_.fill(-1);
  for (const Token& token : tokens) {
    if (token.bytes.size() == 1) byte_tokens_[static_cast<unsigned char>(token.bytes[0])] = token.number;
  }
  std::ranges::move(others, std::back_inserter(tokens));
  std::ranges::sort(tokens, {}, &Token::number);
  std::size_t total = 0;
  const Token* last = nullptr;
  for (const Token& token : tokens) {
    require<IoError>(token.number >= 0 && token.number <= kMaxToken, place,
                     "the number of token \"{}\": expected 0 … {}, got {}", printable(token.bytes, 40), kMaxToken,
                     token.number);
    require<IoError>(token.bytes.size() <= kMaxTokenBytes, place, "token {}: expected at most {} bytes, got {}",
                     token.number, kMaxTokenBytes, token.bytes.size());
    require<IoError>(last == nullptr || last->number != token.number, place,
                     "token {} is there twice: \"{}\" and \"{}\"", token.number,
                     printable(last == nullptr ? "" : last->bytes, 40), printable(token.bytes, 40));
    total += token.bytes.size();
    last = &token;
  }
  require<IoError>(total <= kMaxVocabularyBytes, place, "the tokens: expected at most {} bytes, got {}",
                   kMaxVocabularyBytes, total);
  begins_.reserve(last == nullptr ? 1 : static_cast<std::size_t>(last->number) + 2);
  bytes_.reserve(total);
  for (const Token& token : tokens) {
    begins_.resize(static_cast<std::size_t>(token.number) + 1, static_cast<std::uint32_t>(bytes_.size()));
    bytes_ += token.bytes;
  }
  begins_.push_back(static_cast<std::uint32_t>(bytes_.size()));
  for (std::int32_t byte = 0; byte < 256; ++byte) {
    std::int32_t& token = byte_tokens_[static_cast<std::size_t>(byte)];
    if (token < 0) token = size() + byte;
  }
}

std::optional<std::string_view> Vocabulary::bytes_of(std::int32_t token) const {
  if (token < 0) return std::nullopt;
  if (token < size()) {
    const auto n = static_cast<std::size_t>(token);
    return std::string_view(bytes_).substr(begins_[n], begins_[n + 1] - begins_[n]);
  }
  const auto byte = static_cast<std::size_t>(token - size());
  if (byte >= byte_tokens_.size() || byte_tokens_[byte] != token) return std::nullopt;
  return std::string_view(all_bytes()).substr(byte, 1);
}

ByteTrie::ByteTrie(std::vector<Token> tokens, std::string_view place) {
  std::ranges::sort(tokens, {}, &Token::bytes);
  const auto twice = std::ranges::adjacent_find(tokens, {}, &Token::bytes);
  require<IoError>(twice == tokens.end() || twice->bytes.empty(), place,
                   "tokens {} and {} are both \"{}\": expected different ones",
                   twice == tokens.end() ? 0 : twice->number, twice == tokens.end() ? 0 : (twice + 1)->number,
                   printable(twice == tokens.end() ? "" : twice->bytes, 40));
  // Nodes are made level by level; one stands for the tokens [begin, end), which have their first `depth` bytes in
  // common.
  struct Span {
    std::size_t begin, end, depth;
  };
  std::vector<Span> spans = {{0, tokens.size(), 0}};
  nodes_.emplace_back();
  labels_.push_back(0);
  for (std::uint32_t node = 0; node < nodes_.size(); ++node) {
    auto [begin, end, depth] = spans[node];
    // The shortest come first: at most one, but for those without bytes.
    for (; begin < end && tokens[begin].bytes.size() == depth; ++begin) {
      if (depth > 0) nodes_[node].token = tokens[begin].number;
    }
    if (begin < end) nodes_[node].first = static_cast<std::uint32_t>(nodes_.size());
    while (begin < end) {
      const char label = tokens[begin].bytes[depth];
      std::size_t next = begin;
      while (next < end && tokens[next].bytes[depth] == label) ++next;
      spans.push_back({begin, next, depth + 1});
      nodes_.emplace_back();
      labels_.push_back(static_cast<std::uint8_t>(label));
      ++nodes_[node].children;
      begin = next;
    }
  }
  for (std::uint32_t i = 0; i < nodes_[0].children; ++i) roots_[labels_[nodes_[0].first + i]] = nodes_[0].first + i;
}

std::uint32_t ByteTrie::child(std::uint32_t node, unsigned char byte) const {
  if (node == 0) return roots_[byte];
  const Node& parent = nodes_[node];
  const auto begin = labels_.begin() + parent.first;
  const auto end = begin + parent.children;
  const auto found = std::lower_bound(begin, end, byte);
  return found == end || *found != byte ? 0 : static_cast<std::uint32_t>(found - labels_.begin());
}

std::int32_t ByteTrie::find(std::string_view text) const {
  std::uint32_t node = 0;
  for (const char c : text) {
    node = child(node, static_cast<unsigned char>(c));
    if (node == 0) return kNone;
  }
  return nodes_[node].token;
}

}  // namespace weft::text
