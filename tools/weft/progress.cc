#include "progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace weft::cli {
namespace {

constexpr std::chrono::milliseconds kTerminalInterval{100};
constexpr std::chrono::seconds kLineInterval{10};
constexpr int kBarWidth = 30;

}  // namespace

Progress::Progress(std::int64_t total) : total_(total), terminal_(isatty(STDERR_FILENO) != 0), last_(Clock::now()) {}

Progress::~Progress() { clear(); }

bool Progress::due(Clock::duration interval) {
  const Clock::time_point now = Clock::now();
  if (now - last_ < interval) return false;
  last_ = now;
  return true;
}

void Progress::draw(const std::string& text) {
  fmt::print(stderr, "\r\x1b[K{}", text);
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::update(std::int64_t done, const std::string& note) {
  if (!due(terminal_ ? Clock::duration(kTerminalInterval) : Clock::duration(kLineInterval))) return;
  const std::string count = total_ > 0 ? fmt::format("{}/{}", done, total_) : fmt::format("{}", done);
  if (!terminal_) {
    fmt::print(stderr, "{}  {}\n", count, note);
    return;
  }
  std::string bar;
  if (total_ > 0) {
    const auto filled = static_cast<std::size_t>(std::clamp<std::int64_t>(done * kBarWidth / total_, 0, kBarWidth));
    bar = fmt::format("[{}{}] ", std::string(filled, '#'), std::string(kBarWidth - filled, '.'));
  }
  draw(fmt::format("{}{}  {}", bar, count, note));
}

void Progress::note(const std::string& text) {
  if (terminal_ && due(kTerminalInterval)) draw(text);
}

void Progress::clear() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace weft::cli
