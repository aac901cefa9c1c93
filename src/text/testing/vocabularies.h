// Small vocabularies in the layouts of the published ones.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft::testing {

/// How byte-level vocabularies spell bytes.
std::string spell(std::string_view bytes);

/// A tokenizer.json whose tokens are the 256 bytes, 0 … 255, then what the merges make, then the added tokens.
struct ByteLevelFile {
  std::vector<std::pair<std::string, std::string>> merges;  // bytes
  std::vector<std::string> added;                           // as JSON: {"content":"<x>", …}, numbered by `text`
  std::string model;                                        // further members: R"("ignore_merges": true,)"
  std::string pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true})";
  std::string normalizer = "null";
  bool merges_as_pairs = false;

  std::string text() const;
};

/// A vocabulary of RWKV World: the 256 bytes as 1 … 256, then these tokens.
std::string world_file(const std::vector<std::string>& tokens);

/// Random bytes: `kind` 0 of all 256, 1 of few that are telling, 2 well-formed characters of all planes.
std::string random_text(std::uint64_t seed, int kind, int length);

}  // namespace weft::testing
