// tokenizer.json of Hugging Face, where it is byte-level BPE.
#pragma once

#include <memory>
#include <string_view>

#include "text/tokenizer.h"

namespace weft::text {

/// Reads a tokenizer.json; `name` stands for the file in messages.
std::shared_ptr<const TokenizerData> read_hugging_face(std::string_view file, std::string_view name);

}  // namespace weft::text
