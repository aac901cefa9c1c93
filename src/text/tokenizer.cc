#include "text/tokenizer.h"

#include <limits>

#include "core/format.h"
#include "io/mapped_file.h"
#include "text/hugging_face.h"
#include "text/world.h"

namespace weft {

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  const FileBytes file = map_file(path);
  return load(file.bytes, file.name);
}

Tokenizer Tokenizer::load(std::span<const std::byte> bytes, std::string_view name) {
  const std::string_view file(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t first = file.find_first_not_of(" \t\r\n");
  const char begin = first == file.npos ? '\0' : file[first];
  if (begin == '{') return Tokenizer(text::read_hugging_face(file, name));
  require<IoError>(begin >= '0' && begin <= '9', name,
                   "expected a tokenizer.json or a vocabulary of RWKV World, got a file that begins with \"{}\"",
                   printable(file.substr(0, 20)));
  return Tokenizer(text::read_world(file, name));
}

Tokenizer Tokenizer::bytes() { return Tokenizer(text::byte_tokens()); }

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  constexpr std::size_t kLimit = std::numeric_limits<std::int32_t>::max();
  require<UnsupportedError>(text.size() < kLimit, "encode", "the text: expected less than 2 GiB, got {} bytes; cut it",
                            text.size());
  std::vector<std::int32_t> tokens;
  data_->encode(text, options, tokens);
  return tokens;
}

std::string Tokenizer::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  for (const std::int32_t token : tokens) text += bytes_of(token);
  return text;
}

std::string_view Tokenizer::bytes_of(std::int32_t token) const {
  const std::optional<std::string_view> bytes = data_->vocabulary().bytes_of(token);
  require<ConfigError>(bytes.has_value(), "decode", "a token: expected 0 … {}, got {}", size() - 1, token);
  return *bytes;
}

std::int32_t Tokenizer::size() const { return data_->vocabulary().size(); }
std::string_view Tokenizer::name() const { return data_->name(); }
std::optional<std::int32_t> Tokenizer::end_of_text() const { return data_->end_of_text(); }

}  // namespace weft
