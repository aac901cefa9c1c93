#include "data/token_data.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string_view>

#include "core/format.h"
#include "core/hash.h"
#include "core/random.h"
#include "io/npy.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "raw tokens are mapped as they lie in the file");

constexpr std::uint64_t kWindows = 0x77696e646f77;  // tells these random numbers from all others

std::string_view text_of(const FileBytes& file) {
  return {reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()};
}

template <class T>
std::span<const T> elements_of(const FileBytes& file) {
  return {reinterpret_cast<const T*>(file.bytes.data()), file.bytes.size() / sizeof(T)};
}

std::vector<std::int32_t> tokens_of_array(const FileBytes& file) {
  const Tensor array = read_npy(file);
  const bool whole = array.dtype() == DType::kI64 || array.dtype() == DType::kI32 || array.dtype() == DType::kI16 ||
                     array.dtype() == DType::kI8 || array.dtype() == DType::kU8;
  require<IoError>(whole && array.shape().rank() == 1, file.name, "expected whole numbers along one axis, got {} {}",
                   name_of(array.dtype()), array.shape());
  const Tensor wide = array.to(DType::kI64);
  std::vector<std::int32_t> tokens;
  tokens.reserve(static_cast<std::size_t>(wide.elements()));
  for (const std::int64_t token : wide.data<std::int64_t>()) {
    require<IoError>(token >= 0 && token <= std::numeric_limits<std::int32_t>::max(), file.name,
                     "token {} is {}, expected 0 … 2^31 − 1", tokens.size(), token);
    tokens.push_back(static_cast<std::int32_t>(token));
  }
  return tokens;
}

TokenWindows empty_windows(std::int64_t batch, std::int64_t length) {
  return {.tokens = Tensor(DType::kI64, Shape({batch, length})),
          .targets = Tensor(DType::kI64, Shape({batch, length}))};
}

void fill_window(const TokenData& data, std::int64_t begin, std::int64_t b, TokenWindows& windows) {
  const std::int64_t length = windows.tokens.shape()[1];
  const auto row = [&](Tensor& tensor) {
    return tensor.mutable_data<std::int64_t>().subspan(static_cast<std::size_t>(b * length),
                                                       static_cast<std::size_t>(length));
  };
  data.copy(begin, row(windows.tokens));
  data.copy(begin + 1, row(windows.targets));
}

}  // namespace

TokenData TokenData::open(const fs::path& path, const std::optional<Tokenizer>& tokenizer) {
  const std::string name = printable(path.string(), 1000);
  std::error_code error;
  require<IoError>(!fs::is_directory(path, error), name, "is a folder, expected a file of text or tokens");
  const FileBytes file = map_file(path);
  if (text_of(file).starts_with("\x93NUMPY")) return {name, tokens_of_array(file)};
  if (path.extension() == ".bin") {
    require<IoError>(file.bytes.size() % 2 == 0, name,
                     "expected 16-bit tokens in a file named .bin, got {} bytes; text has another name",
                     file.bytes.size());
    return {name, elements_of<std::uint16_t>(file), file.owner};
  }
  require<ConfigError>(
      tokenizer.has_value(), name,
      "is text, which needs a tokenizer: a vocabulary file (tokenizer.json, rwkv_vocab_v20230424.txt), "
      "or \"bytes\"");
  if (tokenizer->name() == Tokenizer::bytes().name()) return {name, elements_of<std::uint8_t>(file), file.owner};
  return {name, tokenizer->encode(text_of(file))};
}

TokenData::TokenData(std::string name, Numbers numbers, std::shared_ptr<const void> owner)
    : name_(std::move(name)), numbers_(std::move(numbers)), owner_(std::move(owner)) {
  require<IoError>(size() > 1, name_, "expected at least two tokens, got {}", size());
  std::visit(
      [this](const auto& tokens) {
        Hash hash;
        for (const auto token : tokens) {
          largest_ = std::max(largest_, static_cast<std::int32_t>(token));
          hash.add(static_cast<std::uint64_t>(token));
        }
        fingerprint_ = hash.value();
      },
      numbers_);
}

std::int64_t TokenData::size() const {
  return std::visit([](const auto& tokens) { return static_cast<std::int64_t>(tokens.size()); }, numbers_);
}

void TokenData::copy(std::int64_t begin, std::span<std::int64_t> out) const {
  std::visit([&](const auto& tokens) { std::copy_n(tokens.begin() + begin, out.size(), out.begin()); }, numbers_);
}

TokenWindows draw_windows(const TokenData& data, std::int64_t length, std::int64_t batch, std::uint64_t seed,
                          std::int64_t pass, std::int64_t first) {
  require<ConfigError>(length < data.size(), data.name(),
                       "has {} tokens, which do not fill one window of {} and the one that follows; lower ctx_len",
                       data.size(), length);
  TokenWindows windows = empty_windows(batch, length);
  for (std::int64_t b = 0; b < batch; ++b) {
    Random random({kWindows, seed, static_cast<std::uint64_t>(pass), static_cast<std::uint64_t>(first + b)});
    fill_window(data, random.below(data.size() - length), b, windows);
  }
  return windows;
}

std::int64_t window_count(const TokenData& data, std::int64_t length) { return (data.size() - 1) / length; }

TokenWindows window_at(const TokenData& data, std::int64_t length, std::int64_t i) {
  TokenWindows window = empty_windows(1, length);
  fill_window(data, i * length, 0, window);
  return window;
}

}  // namespace weft
