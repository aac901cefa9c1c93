// One combination of model, size, batch and threads, timed in a process of its own: its peak memory is its own, and
// running out of memory ends only it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "common.h"

namespace weft::cli {

struct BenchCase {
  std::string model;  // preset or file
  LoadOptions load;
  Size size;
  int batch = 1;
  int threads = 0;

  bool operator==(const BenchCase& other) const {
    return model == other.model && size == other.size && batch == other.batch && threads == other.threads;
  }
};

/// What a child knows once it has warmed up.
struct BenchFacts {
  std::int64_t macs = 0;    // of the batch
  std::int64_t tokens = 0;  // of one picture, in the last map
  int threads = 0;
  std::int64_t working_bytes = 0;
};

/// A child process, asleep until it is told to run. Must be made while this process has one thread.
class BenchChild {
 public:
  explicit BenchChild(const BenchCase& bench_case);
  ~BenchChild();
  BenchChild(BenchChild&&) noexcept;
  BenchChild& operator=(BenchChild&&) = delete;

  /// Waits until the child has loaded, compiled and run once. Throws Error with the child's failure.
  BenchFacts warm_up();
  /// Seconds of one run. Throws Error.
  double time_once();
  /// Peak resident bytes of the child so far. Throws Error.
  std::int64_t peak_resident_bytes();

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using File = std::unique_ptr<std::FILE, Closer>;

  Json ask(const char* command);
  Json answer();

  std::string name_;
  pid_t pid_ = -1;
  File to_, from_;
};

}  // namespace weft::cli
