// Byte-pair encoding (Sennrich, Haddow, Birch 2016) of bytes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace weft::text {

/// Two neighbouring tokens that become one.
struct Merge {
  std::int32_t left = 0;
  std::int32_t right = 0;
  std::int32_t merged = 0;
};

class BytePairs {
 public:
  /// `bytes`: the token of each byte. `merges`: the first to be done first; of several for one pair the last counts.
  /// Tokens of merges are within 0 … size − 1; larger ones merge with nothing.
  BytePairs(const std::array<std::int32_t, 256>& bytes, std::span<const Merge> merges, std::int32_t size);

  /// What encode works in, kept between words for its memory.
  class Workspace {
   private:
    friend class BytePairs;
    struct Symbol {
      std::int32_t token;
      std::uint32_t previous, next;
      std::uint32_t rank;  // of the merge with the next one
    };
    std::vector<Symbol> symbols_;
    std::vector<std::uint64_t> heap_;  // rank and place of what may be merged
  };

  /// Appends the tokens of a word: while any two neighbours can be merged, those whose merge is the first of all are,
  /// the leftmost of several. O(n log n).
  void encode(std::string_view word, Workspace& work, std::vector<std::int32_t>& out) const;

 private:
  struct Rule {
    std::int32_t right;
    std::int32_t merged;
    std::uint32_t rank;
  };
  const Rule* find(std::int32_t left, std::int32_t right) const;
  void look(Workspace& work, std::uint32_t at) const;

  std::array<std::int32_t, 256> bytes_;
  std::vector<Rule> rules_;             // by left, then right
  std::vector<std::uint32_t> of_left_;  // where the rules of each left token begin
};

}  // namespace weft::text
