// Text as numbers and back: tokenisers, drawing the next token from logits, and text that comes piece by piece.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "weft/api.h"

namespace weft {

class TokenizerData;

struct WEFT_API EncodeOptions {
  /// Applies the normalisation that a tokenizer.json asks for, as Hugging Face does: NFC, in GPT-NeoX's. Off, so that
  /// what is decoded are the bytes that were encoded; text that is in NFC already, as nearly all is, is the same to
  /// both.
  bool normalize = false;
  /// Finds special tokens ("<|endoftext|>") where the text spells them. Off, they are text like any other: for text
  /// that nobody vouches for.
  bool special = true;
};

/// Turns bytes into tokens and back. decode(encode(x)) is x for any bytes, broken UTF-8 and NUL included, but with
/// EncodeOptions::normalize and for a tokenizer.json with add_prefix_space. For that, a byte that the vocabulary has no
/// token for becomes the number size() + byte, which no model must be given: GPT-NeoX's lacks 13 bytes, C0, C1 and F5 …
/// FF, that no UTF-8 has. Immutable: copies share everything, and all methods may be called from several threads.
class WEFT_API Tokenizer {
 public:
  /// Reads a vocabulary; the file's content tells which:
  /// - a tokenizer.json of Hugging Face with byte-level BPE (GPT-NeoX's 20B, GPT-2's and their kin; Sennrich, Haddow,
  ///   Birch 2016; Radford et al. 2019). Pre-tokenisers: ByteLevel, Digits, and Split by the expressions of GPT-2,
  ///   cl100k (Llama 3) and Qwen 2, in any sequence that ByteLevel ends. Nothing is added at a text's ends, whatever
  ///   post_processor the file has;
  /// - a vocabulary of RWKV World: lines of index, token as a Python literal, its length in bytes. The longest token
  ///   that fits comes next.
  /// Throws IoError for a file that is missing, damaged or neither of them; UnsupportedError, which names it, for a
  /// part of a tokenizer.json that would be needed and is not known.
  static Tokenizer load(const std::filesystem::path& path);
  /// The same for a file in memory; `name` stands for the path in messages.
  static Tokenizer load(std::span<const std::byte> bytes, std::string_view name);
  /// A token for each byte: 256.
  static Tokenizer bytes();

  /// Takes O(n log n) time at most. Throws UnsupportedError for texts of 2 GiB and more.
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  /// The bytes of all tokens in a row. Throws ConfigError as bytes_of does.
  std::string decode(std::span<const std::int32_t> tokens) const;
  /// What a token stands for: no bytes for numbers that the vocabulary leaves out and for the end of the text in World;
  /// valid as long as the tokenizer or a copy is. Throws ConfigError for what encode never gives: a token not within
  /// 0 … size() − 1, or size() + a byte that has a token.
  std::string_view bytes_of(std::int32_t token) const;
  /// One more than the largest token. Models often give logits for some more, which no text is made of.
  std::int32_t size() const;
  /// "byte-level BPE", "RWKV World" or "bytes".
  std::string_view name() const;
  /// The token that stands between texts: <|endoftext|>, or 0 in RWKV World, if the vocabulary has it.
  std::optional<std::int32_t> end_of_text() const;

  /// For weft's own use.
  explicit Tokenizer(std::shared_ptr<const TokenizerData> data) : data_(std::move(data)) {}

 private:
  std::shared_ptr<const TokenizerData> data_;
};

/// How the next token is chosen. In this order: what was seen is penalised, logits are divided by the temperature,
/// top_k, top_p, then the draw. (RWKV's own script takes top_p before the temperature.)
struct WEFT_API SamplingOptions {
  /// 0 takes the largest logit, the lowest token of several.
  double temperature = 1;
  /// The likeliest tokens that together have at least this probability, and no more than needed; 1 keeps all, 0 one.
  double top_p = 1;
  /// So many of the likeliest tokens, the lower ones of equals; 0 keeps all.
  int top_k = 0;
  /// Logits of tokens seen are divided by it where positive and multiplied where negative (CTRL; Keskar et al. 2019).
  double repetition_penalty = 1;
  /// Taken from the logits of tokens seen: once, and for each time seen.
  double presence_penalty = 0;
  double frequency_penalty = 0;
  /// With each token accepted, earlier ones count so much less: 0.996 in RWKV's script. 1 forgets nothing.
  double penalty_decay = 1;
  std::uint64_t seed = 0;
};

/// Throws ConfigError that names what is out of range: temperature and penalties not finite or (but for those of
/// presence and frequency) negative, repetition_penalty 0, top_p and penalty_decay not within 0 … 1, top_k negative.
WEFT_API void validate(const SamplingOptions& options);

/// A token and how often it was seen, with penalty_decay.
struct WEFT_API TokenCount {
  std::int32_t token = 0;
  double count = 0;
  bool operator==(const TokenCount&) const = default;
};

/// All that a Sampler remembers.
struct WEFT_API SamplerState {
  /// Tokens drawn so far.
  std::uint64_t position = 0;
  /// Of the tokens accepted, ascending.
  std::vector<TokenCount> counts;
  bool operator==(const SamplerState&) const = default;
};

/// Draws tokens. The draw at position p depends on the seed, p, the options, what was accepted and the logits alone:
/// who goes on from a saved state gets the same tokens. Copies go on independently. Not for several threads at once.
///   for (const auto token : prompt) sampler.accept(token);  // where the prompt shall count as seen
///   const auto token = sampler.next(logits);
///   sampler.accept(token);
class WEFT_API Sampler {
 public:
  /// Throws ConfigError as validate does.
  explicit Sampler(const SamplingOptions& options = {});

  /// One of the tokens 0 … logits.size() − 1; a logit of −∞ is never drawn. Throws NumericError when a logit is NaN or
  /// +∞, or all are −∞; ShapeError when there are none.
  std::int32_t next(std::span<const float> logits);
  /// Counts a token as seen, for the penalties. Throws ConfigError for a negative one.
  void accept(std::int32_t token);

  const SamplingOptions& options() const { return options_; }
  const SamplerState& state() const { return state_; }
  /// Throws ConfigError when the counts are not ascending, or a count is not finite or negative.
  void restore(SamplerState state);

 private:
  SamplingOptions options_;
  SamplerState state_;
  // Kept between calls for their memory.
  std::vector<float> scores_;
  std::vector<float> weights_;
  std::vector<std::pair<float, std::int32_t>> candidates_;
};

/// Finds stop strings in text that comes piece by piece, and holds back what may be the beginning of one. What it says
/// does not depend on where the pieces are cut.
class WEFT_API StopMatcher {
 public:
  /// Without stop strings everything passes. Throws ConfigError for an empty one.
  explicit StopMatcher(std::vector<std::string> stops);

  /// What may be shown after these bytes came: all but an end that begins a stop string. Once a stop string is
  /// complete (the one that ends first, the longest of those that end there), what stands before it; nothing later.
  std::string push(std::string_view bytes);
  /// What is still held back, at the end of the text.
  std::string finish();

  bool stopped() const { return matched_.has_value(); }
  /// Which stop string was found, by its place in the list.
  std::optional<std::size_t> matched() const { return matched_; }

 private:
  struct Stop {
    std::string text;
    std::vector<std::size_t> fallback;  // for each length: of the longest proper border of the text's beginning
    std::size_t length = 0;             // so much of the text's beginning ends what has come
  };
  std::vector<Stop> stops_;
  std::string held_;
  std::optional<std::size_t> matched_;
};

/// Cuts bytes that come piece by piece into well-formed UTF-8, as JSON wants it: a character that is not complete waits
/// for the next piece; what can become none is replaced by U+FFFD, the beginning of a character by one as a whole (as
/// the Unicode Standard recommends, section 3.9).
class WEFT_API Utf8Stream {
 public:
  std::string push(std::string_view bytes);
  /// At the end of the text: U+FFFD for a character that was not completed.
  std::string finish();

 private:
  std::string held_;
};

}  // namespace weft
