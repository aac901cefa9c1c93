#include "text/bpe.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <tuple>

namespace weft::text {
namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

}  // namespace

BytePairs::BytePairs(const std::array<std::int32_t, 256>& bytes, std::span<const Merge> merges, std::int32_t size)
    : bytes_(bytes) {
  std::vector<std::uint32_t> order(merges.size());  // ranks, by left, right, and the last first
  for (std::uint32_t rank = 0; rank < order.size(); ++rank) order[rank] = rank;
  std::ranges::sort(
      order, {}, [&](std::uint32_t rank) { return std::tuple(merges[rank].left, merges[rank].right, kNone - rank); });
  of_left_.assign(static_cast<std::size_t>(size) + 1, 0);
  rules_.reserve(merges.size());
  std::int32_t last = -1;
  for (const std::uint32_t rank : order) {
    const auto& [left, right, merged] = merges[rank];
    if (left == last && rules_.back().right == right) continue;
    rules_.push_back({.right = right, .merged = merged, .rank = rank});
    ++of_left_[static_cast<std::size_t>(left) + 1];
    last = left;
  }
  for (std::size_t i = 1; i < of_left_.size(); ++i) of_left_[i] += of_left_[i - 1];
}

const BytePairs::Rule* BytePairs::find(std::int32_t left, std::int32_t right) const {
  const auto at = static_cast<std::size_t>(left);
  if (at + 1 >= of_left_.size()) return nullptr;
  const Rule* const end = rules_.data() + of_left_[at + 1];
  const Rule* const found = std::lower_bound(rules_.data() + of_left_[at], end, right,
                                             [](const Rule& rule, std::int32_t token) { return rule.right < token; });
  return found == end || found->right != right ? nullptr : found;
}

// Notes how a symbol merges with the next one, and queues that.
void BytePairs::look(Workspace& work, std::uint32_t at) const {
  Workspace::Symbol& symbol = work.symbols_[at];
  const Rule* const rule = symbol.next == kNone ? nullptr : find(symbol.token, work.symbols_[symbol.next].token);
  symbol.rank = rule == nullptr ? kNone : rule->rank;
  if (rule != nullptr) work.heap_.push_back(std::uint64_t{rule->rank} << 32 | at);
}

void BytePairs::encode(std::string_view word, Workspace& work, std::vector<std::int32_t>& out) const {
  if (word.empty()) return;
  auto& symbols = work.symbols_;
  symbols.clear();
  for (std::uint32_t i = 0; i < word.size(); ++i) {
    symbols.push_back({.token = bytes_[static_cast<unsigned char>(word[i])],
                       .previous = i - 1,  // kNone at the beginning
                       .next = i + 1 < word.size() ? i + 1 : kNone,
                       .rank = kNone});
  }
  work.heap_.clear();
  for (std::uint32_t i = 0; i < word.size(); ++i) look(work, i);
  std::ranges::make_heap(work.heap_, std::ranges::greater());
  while (!work.heap_.empty()) {
    const auto rank = static_cast<std::uint32_t>(work.heap_.front() >> 32);
    const auto at = static_cast<std::uint32_t>(work.heap_.front());
    std::ranges::pop_heap(work.heap_, std::ranges::greater());
    work.heap_.pop_back();
    Workspace::Symbol& left = symbols[at];
    if (left.rank != rank) continue;  // what was queued is no longer there
    const std::uint32_t gone = left.next;
    left.token = find(left.token, symbols[gone].token)->merged;
    left.next = symbols[gone].next;
    symbols[gone].rank = kNone;
    if (left.next != kNone) symbols[left.next].previous = at;
    for (const std::uint32_t changed : {left.previous, at}) {
      if (changed == kNone) continue;
      const std::size_t queued = work.heap_.size();
      look(work, changed);
      if (work.heap_.size() > queued) std::ranges::push_heap(work.heap_, std::ranges::greater());
    }
  }
  for (std::uint32_t i = 0; i != kNone; i = symbols[i].next) out.push_back(symbols[i].token);
}

}  // namespace weft::text
