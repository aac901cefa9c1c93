#include "text/hugging_face.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/format.h"
#include "io/json.h"
#include "text/byte_level.h"
#include "text/unicode.h"

namespace weft::text {
namespace {

struct KnownExpression {
  std::string_view text;
  Cut cut;
};
constexpr std::array kExpressions = {
    KnownExpression{R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Cut::kGpt2},
    KnownExpression{R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Cut::kGpt2},
    KnownExpression{
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
        Cut::kCl100k},
    KnownExpression{
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
        Cut::kQwen2},
};

// Byte-level vocabularies spell each byte as a character that can be seen: printable bytes of Latin-1 as themselves,
// the others as U+0100 and on, in order.
class Spelling {
 public:
  Spelling() {
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool visible = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
      const char32_t code = visible ? byte : next++;
      bytes_.resize(std::max<std::size_t>(bytes_.size(), code + 1), -1);
      bytes_[code] = static_cast<int>(byte);
    }
  }

  /// The bytes that this spells; nothing when a character stands for none.
  std::optional<std::string> bytes(std::string_view spelled) const {
    std::string out;
    while (!spelled.empty()) {
      const Char c = first_char(spelled);
      if (c.code >= bytes_.size() || bytes_[c.code] < 0) return std::nullopt;
      out += static_cast<char>(bytes_[c.code]);
      spelled.remove_prefix(c.length);
    }
    return out;
  }

 private:
  std::vector<int> bytes_;
};

class Reader {
 public:
  Reader(const Json& file, std::string_view place) : file_(file), place_(place) {}

  ByteLevelParts read() {
    require<IoError>(file_.is_object(), place_, "expected a tokenizer.json, an object, got {}", file_.type_name());
    const Json* const model = find(file_, "model");
    require<IoError>(model != nullptr && model->is_object(), place_, "a tokenizer.json has an object \"model\", got {}",
                     shown(model));
    read_model(*model);
    read_added(find(file_, "added_tokens"));
    read_normalizer(find(file_, "normalizer"));
    read_pre_tokenizer(find(file_, "pre_tokenizer"));
    return std::move(parts_);
  }

 private:
  // A member of an object; nullptr where it is absent or null.
  static const Json* find(const Json& object, std::string_view key) {
    const auto found = object.find(std::string(key));
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }
  static std::string shown(const Json* json) { return json == nullptr ? "nothing" : printable(dump(*json), 60); }

  bool flag(const Json& object, std::string_view key, bool absent) const {
    const Json* const value = find(object, key);
    require<IoError>(value == nullptr || value->is_boolean(), place_, "\"{}\": expected true or false, got {}", key,
                     shown(value));
    return value == nullptr ? absent : value->get<bool>();
  }
  const std::string& string(const Json& object, std::string_view key) const {
    const Json* const value = find(object, key);
    require<IoError>(value != nullptr && value->is_string(), place_, "\"{}\": expected a string, got {}", key,
                     shown(value));
    return value->get_ref<const std::string&>();
  }
  std::int32_t number(const Json* value, std::string_view token) const {
    const bool fits = value != nullptr && value->is_number_unsigned() && value->get<std::uint64_t>() <= kMaxToken;
    if (fits) return value->get<std::int32_t>();
    fail<IoError>(place_, "the number of token \"{}\": expected 0 … {}, got {}", printable(token, 40), kMaxToken,
                  shown(value));
  }
  template <class... Args>
  [[noreturn]] void unsupported(fmt::format_string<Args...> what, Args&&... args) const {
    fail<UnsupportedError>(place_, "{} is not supported", fmt::format(what, std::forward<Args>(args)...));
  }

  void read_model(const Json& model) {
    const Json* const type = find(model, "type");
    if (type != nullptr && *type != "BPE") unsupported("a model of type {}", shown(type));
    for (const char* const key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json* const affix = find(model, key);
      if (affix != nullptr && *affix != Json("")) unsupported("\"{}\" of {}", key, shown(affix));
    }
    const Json* const dropout = find(model, "dropout");
    if (dropout != nullptr && *dropout != 0) unsupported("a dropout of {}", shown(dropout));
    parts_.ignore_merges = flag(model, "ignore_merges", false);

    const Json* const vocabulary = find(model, "vocab");
    require<IoError>(vocabulary != nullptr && vocabulary->is_object(), place_, "\"vocab\": expected an object, got {}",
                     shown(vocabulary));
    numbers_.reserve(vocabulary->size());
    for (const auto& item : vocabulary->items()) {
      const std::int32_t token = number(&item.value(), item.key());
      const std::optional<std::string> bytes = spelling_.bytes(item.key());
      auto& list = bytes ? parts_.tokens : parts_.others;
      list.push_back({.number = token, .bytes = bytes.value_or(item.key())});
      numbers_.emplace(item.key(), token);
    }
    const Json* const merges = find(model, "merges");
    require<IoError>(merges != nullptr && merges->is_array(), place_, "\"merges\": expected a list, got {}",
                     shown(merges));
    parts_.merges.reserve(merges->size());
    for (const Json& merge : *merges) read_merge(merge);
  }

  // "a b" or ["a", "b"].
  void read_merge(const Json& merge) {
    std::string_view left, right;
    if (merge.is_string()) {
      const std::string_view both = merge.get_ref<const std::string&>();
      const std::size_t space = both.find(' ');
      if (space != both.npos) left = both.substr(0, space), right = both.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    }
    if (left.empty() || right.empty()) fail<IoError>(place_, "a merge: expected two tokens, got {}", shown(&merge));
    both_.assign(left).append(right);
    parts_.merges.push_back(
        {.left = merged(left, merge), .right = merged(right, merge), .merged = merged(both_, merge)});
  }
  std::int32_t merged(std::string_view token, const Json& merge) const {
    const auto found = numbers_.find(token);
    if (found != numbers_.end()) return found->second;
    fail<IoError>(place_, "the merge {}: expected tokens of the vocabulary, got \"{}\"", shown(&merge),
                  printable(token, 40));
  }

  void read_added(const Json* list) {
    if (list == nullptr) return;
    require<IoError>(list->is_array(), place_, "\"added_tokens\": expected a list, got {}", shown(list));
    for (const Json& entry : *list) {
      require<IoError>(entry.is_object(), place_, "an added token: expected an object, got {}", shown(&entry));
      const std::string& content = string(entry, "content");
      const std::int32_t token = number(find(entry, "id"), content);
      for (const char* const key : {"single_word", "lstrip", "rstrip"}) {
        if (flag(entry, key, false)) unsupported("\"{}\" of the added token \"{}\"", key, printable(content, 40));
      }
      const auto known = numbers_.find(content);
      if (known == numbers_.end()) {
        parts_.others.push_back({.number = token, .bytes = content});
      } else {
        require<IoError>(known->second == token, place_, "the added token \"{}\": expected its number {}, got {}",
                         printable(content, 40), known->second, token);
        if (spelling_.bytes(content).value_or(content) != content) {
          unsupported("the added token \"{}\", which the vocabulary has for other bytes,", printable(content, 40));
        }
      }
      const bool special = flag(entry, "special", false);
      parts_.added.push_back({.token = {.number = token, .bytes = content},
                              .special = special,
                              .normalized = flag(entry, "normalized", !special)});
    }
  }

  void read_normalizer(const Json* normalizer) {
    if (normalizer == nullptr) return;
    require<IoError>(normalizer->is_object(), place_, "\"normalizer\": expected an object, got {}", shown(normalizer));
    const std::string& type = string(*normalizer, "type");
    if (type != "NFC") unsupported("the normalizer {}", printable(type, 40));
    parts_.nfc = true;
  }

  void read_pre_tokenizer(const Json* json) {
    std::vector<const Json*> steps;
    if (json != nullptr && json->is_object() && string(*json, "type") == "Sequence") {
      const Json* const list = find(*json, "pretokenizers");
      require<IoError>(list != nullptr && list->is_array(), place_, "\"pretokenizers\": expected a list, got {}",
                       shown(list));
      for (const Json& step : *list) steps.push_back(&step);
    } else {
      steps.push_back(json);
    }
    for (std::size_t i = 0; i < steps.size(); ++i) {
      require<IoError>(steps[i] == nullptr || steps[i]->is_object(), place_,
                       "a pre-tokenizer: expected an object, got {}", shown(steps[i]));
      read_step(steps[i] == nullptr ? "" : string(*steps[i], "type"), steps[i], i + 1 == steps.size());
    }
    if (steps.empty()) unsupported("an empty sequence of pre-tokenizers");
  }

  void read_step(const std::string& type, const Json* step, bool last) {
    if (type == "ByteLevel" && last) {
      parts_.add_prefix_space = flag(*step, "add_prefix_space", true);
      parts_.use_regex = flag(*step, "use_regex", true);
    } else if (last) {
      unsupported("a tokenizer other than byte-level, with a last pre-tokenizer {},", shown(step));
    } else if (type == "Digits") {
      parts_.cuts.push_back(flag(*step, "individual_digits", false) ? Cut::kDigits : Cut::kDigitRuns);
    } else if (type == "Split") {
      parts_.cuts.push_back(expression(*step));
    } else {
      unsupported("the pre-tokenizer {} before the last", printable(type, 40));
    }
  }

  Cut expression(const Json& split) const {
    const Json* const pattern = find(split, "pattern");
    const Json* const text = pattern != nullptr && pattern->is_object() ? find(*pattern, "Regex") : nullptr;
    const auto* const known = std::ranges::find_if(
        kExpressions, [&](const KnownExpression& e) { return text != nullptr && *text == std::string(e.text); });
    if (known == kExpressions.end()) unsupported("splitting by {}", printable(shown(pattern), 300));
    const bool isolated = string(split, "behavior") == "Isolated" && !flag(split, "invert", false);
    const bool removed_between = string(split, "behavior") == "Removed" && flag(split, "invert", false);
    if (!isolated && !removed_between) unsupported("a split {}", printable(dump(split), 300));
    return known->cut;
  }

  const Json& file_;
  std::string_view place_;
  Spelling spelling_;
  ByteLevelParts parts_;
  std::unordered_map<std::string_view, std::int32_t> numbers_;  // the keys are the file's
  std::string both_;
};

}  // namespace

std::shared_ptr<const TokenizerData> read_hugging_face(std::string_view file, std::string_view name) {
  return make_byte_level(Reader(parse_json(file, name), name).read(), name);
}

}  // namespace weft::text
