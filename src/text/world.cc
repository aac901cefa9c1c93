#include "text/world.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "core/format.h"
#include "text/unicode.h"

namespace weft::text {
namespace {

// The longest token that fits, then the longest that fits behind it.
class GreedyTokenizer : public TokenizerData {
 public:
  GreedyTokenizer(Vocabulary vocabulary, ByteTrie trie, std::string_view name, std::optional<std::int32_t> end_of_text)
      : TokenizerData(std::move(vocabulary), name, end_of_text), trie_(std::move(trie)) {}

  void encode(std::string_view text, const EncodeOptions& /*options*/, std::vector<std::int32_t>& out) const override {
    while (!text.empty()) {
      const ByteTrie::Match match = trie_.longest(text, [](std::int32_t) { return true; });
      const bool found = match.length > 0;
      out.push_back(found ? match.token : vocabulary().byte_tokens()[static_cast<unsigned char>(text[0])]);
      text.remove_prefix(found ? match.length : 1);
    }
  }

 private:
  ByteTrie trie_;
};

// A number in decimal digits, the whole of `text`; -1 for anything else.
std::int64_t natural(std::string_view text) {
  std::int64_t value = -1;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end && text[0] != '-' ? value : -1;
}

// Python's literals, as far as repr() writes them for str and bytes.
class Literal {
 public:
  Literal(std::string_view text, std::string_view place) : rest_(text), place_(place) {}

  std::string read() {
    bytes_ = take('b');
    const char quote = rest_.empty() ? '\0' : rest_.front();
    require<IoError>(quote == '\'' || quote == '"', place_, "expected a token in quotes, got {}", printable(rest_, 40));
    rest_.remove_prefix(1);
    std::string out;
    while (!take(quote)) {
      require<IoError>(!rest_.empty(), place_, "the token has no closing quote");
      if (take('\\')) {
        escape(out);
      } else {
        plain(out);
      }
    }
    require<IoError>(rest_.empty(), place_, "expected a space behind the token, got {}", printable(rest_, 40));
    return out;
  }

 private:
  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void plain(std::string& out) {
    const std::size_t length = utf8_length(rest_);
    require<IoError>(length == 1 || (length > 1 && !bytes_), place_, "expected {}, got {}",
                     bytes_ ? "ASCII in a token of bytes" : "UTF-8", printable(rest_, 40));
    out += rest_.substr(0, length);
    rest_.remove_prefix(length);
  }

  void escape(std::string& out) {
    constexpr std::string_view kNames = "\\'\"abfnrtv";
    constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
    const std::string_view shown = rest_;
    const char name = rest_.empty() ? '\0' : rest_.front();
    if (!rest_.empty()) rest_.remove_prefix(1);
    if (const auto at = kNames.find(name); at != kNames.npos) {
      out += kValues[at];
      return;
    }
    const std::size_t digits = name == 'x' ? 2 : bytes_ ? 0 : name == 'u' ? 4 : name == 'U' ? 8 : 0;
    std::uint32_t code = 0;
    const char* const end = rest_.data() + std::min(digits, rest_.size());
    const bool known = digits > 0 && rest_.size() >= digits && std::from_chars(rest_.data(), end, code, 16).ptr == end;
    require<IoError>(known, place_, "unknown escape \\{}", printable(shown.substr(0, 10)));
    rest_.remove_prefix(digits);
    if (bytes_) {
      out += static_cast<char>(code);
      return;
    }
    require<IoError>(code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF), place_, "no code point: \\{}",
                     printable(shown.substr(0, 10)));
    append_utf8(code, out);
  }

  std::string_view rest_;
  std::string_view place_;
  bool bytes_ = false;
};

Token read_line(std::string_view line, std::string_view place) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  require<IoError>(first != line.npos && last > first, place, "expected a number, a token and its length, got {}",
                   printable(line, 60));
  const std::int64_t number = natural(line.substr(0, first));
  require<IoError>(number >= 0 && number <= kMaxToken, place, "the token's number: expected 0 … {}, got {}", kMaxToken,
                   printable(line.substr(0, first), 40));
  std::string bytes = Literal(line.substr(first + 1, last - first - 1), place).read();
  require<IoError>(!bytes.empty(), place, "expected a token of at least one byte, got {}", printable(line, 60));
  require<IoError>(natural(line.substr(last + 1)) == static_cast<std::int64_t>(bytes.size()), place,
                   "the token's length in bytes: expected {}, got {}", bytes.size(),
                   printable(line.substr(last + 1), 40));
  return {.number = static_cast<std::int32_t>(number), .bytes = std::move(bytes)};
}

}  // namespace

std::shared_ptr<const TokenizerData> read_world(std::string_view file, std::string_view name) {
  std::vector<Token> tokens;
  bool zero = false;
  for (int line = 1; !file.empty(); ++line) {
    const std::size_t end = std::min(file.find('\n'), file.size());
    std::string_view text = file.substr(0, end);
    file.remove_prefix(std::min(end + 1, file.size()));
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.empty() && file.empty()) break;
    tokens.push_back(read_line(text, fmt::format("{}:{}", name, line)));
    zero = zero || tokens.back().number == 0;
  }
  Vocabulary vocabulary(tokens, {}, name);
  ByteTrie trie(std::move(tokens), name);
  const std::optional<std::int32_t> end_of_text = zero ? std::nullopt : std::optional(0);
  return std::make_shared<GreedyTokenizer>(std::move(vocabulary), std::move(trie), "RWKV World", end_of_text);
}

std::shared_ptr<const TokenizerData> byte_tokens() {
  std::vector<Token> tokens(256);
  for (std::int32_t byte = 0; byte < 256; ++byte) {
    tokens[static_cast<std::size_t>(byte)] = {.number = byte, .bytes = std::string(1, static_cast<char>(byte))};
  }
  return std::make_shared<GreedyTokenizer>(Vocabulary(tokens, {}, "bytes"), ByteTrie(tokens, "bytes"), "bytes",
                                           std::nullopt);
}

}  // namespace weft::text
