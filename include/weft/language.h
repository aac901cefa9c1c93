// Language models: tokens in, what may follow out, with a state in the place of everything read so far.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "weft/api.h"
#include "weft/model.h"
#include "weft/tensor.h"

namespace weft {

/// All that a recurrent model keeps of a text: as large after a million tokens as after one. A value: a copy is a fork.
struct WEFT_API LanguageState {
  /// Read so far.
  std::int64_t tokens = 0;
  /// By the model's names ("blocks.0.att.wkv"), f32.
  std::map<std::string, Tensor, std::less<>> parts;
};

/// A state in a file, and what its owner wrote beside it.
struct WEFT_API SavedState {
  LanguageState state;
  std::map<std::string, std::string> notes;
};

/// Runs a model that reads text on the CPU. All methods may be called from several threads at once, each with a state
/// of its own: they share the session's threads and weights.
class WEFT_API LanguageSession {
 public:
  /// Throws ConfigError for options that make no sense, UnsupportedError for a model that reads pictures.
  explicit LanguageSession(Model model, const SessionOptions& options = {});
  ~LanguageSession();
  LanguageSession(LanguageSession&&) noexcept;
  LanguageSession& operator=(LanguageSession&&) noexcept;

  const Model& model() const;
  int threads() const;
  DType dtype() const;

  /// Before the first token.
  LanguageState start() const;

  /// Reads tokens, at least one, and moves the state behind them. Returns the logits of what follows, f32 [V]. Many
  /// tokens are read as a sequence, in pieces of at most 256: in memory that does not depend on their number, and to
  /// the same numbers (within rounding) as one by one. Throws ShapeError for a token that the model does not know or a
  /// state that is not the model's, MemoryError where max_memory would be passed; the state is then as before.
  Tensor read(std::span<const std::int32_t> tokens, LanguageState& state) const;
  /// The same with the logits behind each of the tokens, f32 [T,V].
  Tensor read_all(std::span<const std::int32_t> tokens, LanguageState& state) const;

  /// Writes a safetensors file. Throws IoError, and ShapeError for a state that is not the model's.
  void save(const std::filesystem::path& path, const SavedState& saved) const;
  /// Throws IoError for a file that is no state, ConfigError for one of another model.
  SavedState load(const std::filesystem::path& path) const;

  /// Bytes of all weights that reading one token goes through.
  std::int64_t bytes_per_token() const;
  /// Bytes of working memory for one piece of so many tokens, beside the weights. Compiles for it.
  std::int64_t working_bytes(std::int64_t tokens) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
