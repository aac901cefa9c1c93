#include "text/byte_level.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "text/unicode.h"

namespace weft::text {
namespace {

constexpr std::string_view kEndOfText = "<|endoftext|>";
constexpr std::array kGpt2 = {Cut::kGpt2};

// The added tokens of one kind, found in a text from left to right, the longest first.
class AddedTokens {
 public:
  AddedTokens(const std::vector<AddedToken>& added, bool normalized, std::string_view place)
      : trie_(of_kind(added, normalized), place) {
    for (const AddedToken& token : added) {
      if (token.special) special_.push_back(token.token.number);
    }
    std::ranges::sort(special_);
  }

  /// Calls `found` with each added token, and `between` with the text around them.
  void split(std::string_view text, bool special, FunctionRef<void(std::string_view)> between,
             FunctionRef<void(std::int32_t)> found) const {
    const auto wanted = [&](std::int32_t token) { return special || !std::ranges::binary_search(special_, token); };
    std::size_t begin = 0;
    std::size_t at = 0;
    while (at < text.size()) {
      const bool begins = trie_.begins(static_cast<unsigned char>(text[at]));
      const ByteTrie::Match match = begins ? trie_.longest(text.substr(at), wanted) : ByteTrie::Match();
      if (match.length == 0) {
        ++at;
        continue;
      }
      if (at > begin) between(text.substr(begin, at - begin));
      found(match.token);
      begin = at += match.length;
    }
    if (at > begin) between(text.substr(begin));
  }

 private:
  static std::vector<Token> of_kind(const std::vector<AddedToken>& added, bool normalized) {
    std::vector<Token> tokens;
    for (const AddedToken& token : added) {
      if (token.normalized == normalized) tokens.push_back(token.token);
    }
    return tokens;
  }

  ByteTrie trie_;
  std::vector<std::int32_t> special_;
};

std::optional<std::int32_t> find_end_of_text(const ByteLevelParts& parts) {
  for (const std::vector<Token>* const tokens : {&parts.tokens, &parts.others}) {
    const auto found = std::ranges::find(*tokens, kEndOfText, &Token::bytes);
    if (found != tokens->end()) return found->number;
  }
  return std::nullopt;
}

class ByteLevelTokenizer : public TokenizerData {
 public:
  ByteLevelTokenizer(ByteLevelParts parts, std::string_view place)
      : TokenizerData(Vocabulary(parts.tokens, parts.others, place), "byte-level BPE", find_end_of_text(parts)),
        raw_(parts.added, false, place),
        normalized_(parts.added, true, place),
        pairs_(vocabulary().byte_tokens(), parts.merges, vocabulary().size()),
        words_(whole_words(parts), place),
        cuts_(std::move(parts.cuts)),
        add_prefix_space_(parts.add_prefix_space),
        use_regex_(parts.use_regex),
        nfc_(parts.nfc) {}

  void encode(std::string_view text, const EncodeOptions& options, std::vector<std::int32_t>& out) const override {
    BytePairs::Workspace work;
    const auto add = [&](std::int32_t token) { out.push_back(token); };
    const auto encode_text = [&](std::string_view part) { encode_words(part, work, out); };
    const auto find_normalized = [&](std::string_view part) {
      normalized_.split(nfc_ && options.normalize ? std::string_view(nfc(part)) : part, options.special, encode_text,
                        add);
    };
    raw_.split(text, options.special, find_normalized, add);
  }

 private:
  // Tokens that their own bytes are encoded as, so that they can be looked up: most words are such.
  std::vector<Token> whole_words(const ByteLevelParts& parts) const {
    std::vector<Token> words;
    BytePairs::Workspace work;
    std::vector<std::int32_t> made;
    for (const Token& token : parts.tokens) {
      made.clear();
      if (!parts.ignore_merges) pairs_.encode(token.bytes, work, made);
      if (parts.ignore_merges || (made.size() == 1 && made[0] == token.number)) words.push_back(token);
    }
    return words;
  }

  void encode_words(std::string_view text, BytePairs::Workspace& work, std::vector<std::int32_t>& out) const {
    const auto encode_word = [&](std::string_view word) {
      const std::int32_t token = words_.find(word);
      if (token == ByteTrie::kNone) return pairs_.encode(word, work, out);
      out.push_back(token);
    };
    const std::span<const Cut> byte_level = use_regex_ ? std::span<const Cut>(kGpt2) : std::span<const Cut>();
    for_each_word(cuts_, text, [&](std::string_view piece) {
      if (!add_prefix_space_ || piece.starts_with(' ')) return for_each_word(byte_level, piece, encode_word);
      for_each_word(byte_level, ' ' + std::string(piece), encode_word);
    });
  }

  AddedTokens raw_;
  AddedTokens normalized_;
  BytePairs pairs_;
  ByteTrie words_;
  std::vector<Cut> cuts_;
  bool add_prefix_space_;
  bool use_regex_;
  bool nfc_;
};

}  // namespace

std::shared_ptr<const TokenizerData> make_byte_level(ByteLevelParts parts, std::string_view name) {
  return std::make_shared<ByteLevelTokenizer>(std::move(parts), name);
}

}  // namespace weft::text
