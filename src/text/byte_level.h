// Byte-level BPE (Radford et al. 2019): added tokens first, then words, then merges of bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/bpe.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace weft::text {

/// A token that is looked for in the text itself.
struct AddedToken {
  Token token;
  bool special = false;
  /// Looked for in text that is normalised already, where the other kind has found nothing.
  bool normalized = false;
};

/// All that a tokenizer.json tells.
struct ByteLevelParts {
  /// Tokens that words are made of.
  std::vector<Token> tokens;
  /// Tokens that words are never made of.
  std::vector<Token> others;
  /// Also among the tokens or the others.
  std::vector<AddedToken> added;
  std::vector<Merge> merges;
  /// How words are cut before ByteLevel.
  std::vector<Cut> cuts;
  /// ByteLevel: a space goes before each piece that begins with none; pieces are cut by GPT-2's expression.
  bool add_prefix_space = false;
  bool use_regex = true;
  /// A word that is a token is that token, whatever the merges make of it.
  bool ignore_merges = false;
  /// Text is to be in normalisation form C.
  bool nfc = false;
};

std::shared_ptr<const TokenizerData> make_byte_level(ByteLevelParts parts, std::string_view name);

}  // namespace weft::text
