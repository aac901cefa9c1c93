// How far a long command has come, on stderr: a bar on a terminal, a line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace weft::cli {

class Progress {
 public:
  /// `total` < 0: not known.
  explicit Progress(std::int64_t total);
  /// Takes the bar off the terminal.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of the total are done; `note` stands behind the bar.
  void update(std::int64_t done, const std::string& note);
  /// What is being done, on a terminal only.
  void note(const std::string& text);
  /// Call before something else is printed to stderr.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  bool due(Clock::duration interval);
  void draw(const std::string& text);

  std::int64_t total_;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point last_;
};

}  // namespace weft::cli
