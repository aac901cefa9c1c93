// Text that comes piece by piece.
#include <algorithm>
#include <utility>

#include "core/format.h"
#include "weft/text.h"

namespace weft {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& text : stops) {
    require<ConfigError>(!text.empty(), "stop", "a stop string is empty: expected at least one byte");
    std::vector<std::size_t> fallback(text.size() + 1);
    for (std::size_t i = 1, border = 0; i < text.size(); ++i) {
      while (border > 0 && text[i] != text[border]) border = fallback[border];
      if (text[i] == text[border]) ++border;
      fallback[i + 1] = border;
    }
    stops_.push_back({.text = std::move(text), .fallback = std::move(fallback)});
  }
}

// Knuth, Morris, Pratt 1977, for each stop string.
std::string StopMatcher::push(std::string_view bytes) {
  if (stopped()) return "";
  std::size_t held = 0;
  for (const char byte : bytes) {
    held_ += byte;
    held = 0;
    for (std::size_t i = 0; i < stops_.size(); ++i) {
      auto& [text, fallback, length] = stops_[i];
      while (length > 0 && text[length] != byte) length = fallback[length];
      if (text[length] == byte) ++length;
      held = std::max(held, length);
      if (length < text.size()) continue;
      if (!matched_ || text.size() > stops_[*matched_].text.size()) matched_ = i;
    }
    if (!matched_) continue;
    held_.resize(held_.size() - stops_[*matched_].text.size());
    return std::exchange(held_, "");
  }
  if (bytes.empty()) return "";
  std::string shown = held_.substr(0, held_.size() - held);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::finish() {
  for (Stop& stop : stops_) stop.length = 0;
  return std::exchange(held_, "");
}

namespace {

// Whether more bytes could make this, which is no character, one.
bool may_become_character(std::string_view bytes) {
  const std::string begun(bytes);
  return utf8_length(begun + "\x80\x80\x80") > 0 || utf8_length(begun + "\xBF\xBF\xBF") > 0;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string out;
  std::string_view rest = held_;
  while (!rest.empty()) {
    std::size_t length = utf8_length(rest);
    if (length > 0) {
      out += rest.substr(0, length);
    } else {
      if (may_become_character(rest)) break;
      for (length = 1; may_become_character(rest.substr(0, length + 1));) ++length;
      out += "\uFFFD";
    }
    rest.remove_prefix(length);
  }
  held_.erase(0, held_.size() - rest.size());
  return out;
}

std::string Utf8Stream::finish() { return std::exchange(held_, "").empty() ? "" : "\uFFFD"; }

}  // namespace weft
