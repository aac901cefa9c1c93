#include "text/testing/vocabularies.h"

#include <fmt/ranges.h>

#include <set>

#include "core/json.h"
#include "core/random.h"
#include "text/unicode.h"

namespace weft::testing {

using namespace std::literals;

std::string spell(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    // The bytes that cannot be seen, in order, are 00 … 20, 7F … A0 and AD.
    char32_t code = byte;
    if (byte <= 0x20) code = 0x100 + byte;
    if (byte >= 0x7F && byte <= 0xA0) code = 0x121 + (byte - 0x7F);
    if (byte == 0xAD) code = 0x143;
    text::append_utf8(code, out);
  }
  return out;
}

std::string ByteLevelFile::text() const {
  Json vocabulary = Json::object();
  std::set<std::string> known;
  const auto add = [&](const std::string& bytes) {
    if (known.insert(bytes).second) vocabulary[spell(bytes)] = vocabulary.size();
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  Json list = Json::array();
  for (const auto& [left, right] : merges) {
    add(left + right);
    list.push_back(merges_as_pairs ? Json::array({spell(left), spell(right)}) : Json(spell(left) + " " + spell(right)));
  }
  Json added_tokens = Json::array();
  for (const std::string& entry : added) {
    Json token = Json::parse(entry);
    token["id"] = vocabulary.size() + added_tokens.size();
    added_tokens.push_back(token);
  }
  return fmt::format(R"({{"version":"1.0","added_tokens":{},"normalizer":{},"pre_tokenizer":{},)"
                     R"("model":{{"type":"BPE","dropout":null,"unk_token":null,{}"vocab":{},"merges":{}}}}})",
                     added_tokens.dump(), normalizer, pre_tokenizer, model, vocabulary.dump(), list.dump());
}

std::string world_file(const std::vector<std::string>& tokens) {
  std::string out;
  int number = 0;
  const auto add = [&](std::string_view bytes) {
    std::string escaped;
    for (const char c : bytes) escaped += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    out += fmt::format("{} b'{}' {}\n", ++number, escaped, bytes.size());
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (const std::string& token : tokens) add(token);
  return out;
}

std::string random_text(std::uint64_t seed, int kind, int length) {
  Random random({seed, static_cast<std::uint64_t>(kind)});
  constexpr std::string_view kTelling = " \n\t\0aab'1s\xC3\xA9\xFF\x80\xE2\x82\xAC"sv;
  std::string out;
  while (static_cast<int>(out.size()) < length) {
    if (kind == 0) {
      out += static_cast<char>(random.below(256));
    } else if (kind == 1) {
      out += kTelling[static_cast<std::size_t>(random.below(kTelling.size()))];
    } else {
      const auto code = static_cast<char32_t>(random.below(std::int64_t{1} << random.below(21)));
      if (code < 0xD800 || code > 0xDFFF) text::append_utf8(code, out);
    }
  }
  return out;
}

}  // namespace weft::testing
