// What a Tokenizer is made of.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/vocabulary.h"
#include "weft/text.h"

namespace weft {

/// A kind of tokenizer: its vocabulary, and how it cuts text.
class TokenizerData {
 public:
  TokenizerData(text::Vocabulary vocabulary, std::string_view name, std::optional<std::int32_t> end_of_text)
      : vocabulary_(std::move(vocabulary)), name_(name), end_of_text_(end_of_text) {}
  virtual ~TokenizerData() = default;
  TokenizerData(const TokenizerData&) = delete;
  TokenizerData& operator=(const TokenizerData&) = delete;

  /// Appends the tokens of `text`.
  virtual void encode(std::string_view text, const EncodeOptions& options, std::vector<std::int32_t>& out) const = 0;

  const text::Vocabulary& vocabulary() const { return vocabulary_; }
  std::string_view name() const { return name_; }
  std::optional<std::int32_t> end_of_text() const { return end_of_text_; }

 private:
  text::Vocabulary vocabulary_;
  std::string_view name_;
  std::optional<std::int32_t> end_of_text_;
};

}  // namespace weft
