// Greedy tokenisers: RWKV World's, and single bytes.
#pragma once

#include <memory>
#include <string_view>

#include "text/tokenizer.h"

namespace weft::text {

/// Reads the vocabulary of RWKV World (BlinkDL/ChatRWKV, tokenizer/rwkv_vocab_v20230424.txt): a token a line, as
///   <number> <'…' or "…", UTF-8, or b'…', bytes; with Python's escapes> <length in bytes>
/// `name` stands for the file in messages.
std::shared_ptr<const TokenizerData> read_world(std::string_view file, std::string_view name);

/// Tokens 0 … 255 are the bytes.
std::shared_ptr<const TokenizerData> byte_tokens();

}  // namespace weft::text
