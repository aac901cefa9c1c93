// Processes that do something once, each time they are told to: what is measured lives in one of its own, so that its
// peak memory is its own, and running out of memory ends only it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"

namespace weft::cli {

/// A child process, asleep until it is asked. Must be made while this process has one thread.
///
/// Requests are lines of one word, answers are lines of one JSON object; {"error"} ends the child. The first answer
/// comes unasked, when the child is ready.
class BenchChild {
 public:
  /// The pipe's ends in the child.
  struct Pipe {
    std::FILE* from;
    std::FILE* to;
  };
  /// `name` stands in messages; `life` is what the child does: what it throws is answered as an error.
  BenchChild(std::string name, const std::function<void(const Pipe&)>& life);
  ~BenchChild();
  BenchChild(BenchChild&&) noexcept;
  BenchChild& operator=(BenchChild&&) = delete;

  /// Waits for the next answer. Throws Error with the child's failure or how it ended.
  Json answer();
  /// The number that it answers under this name. Throws Error, also where there is none.
  double ask(const std::string& request, const std::string& name);

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using File = std::unique_ptr<std::FILE, Closer>;

  std::string name_;
  pid_t pid_ = -1;
  File to_, from_;
};

/// In the child: answers.
void say(std::FILE* to, const Json& json);
/// In the child: answers requests until the pipe closes. `serve` throws Error for a request that it does not know.
void serve_requests(const BenchChild::Pipe& pipe, const std::function<Json(const std::string&)>& serve);
/// In the child: becomes this program, its standard input and output the pipe, its errors nowhere. `missing` is the
/// error when there is no such program.
[[noreturn]] void become(const BenchChild::Pipe& pipe, std::vector<std::string> command, const std::string& missing);

}  // namespace weft::cli
