// Processes that train one model together, on one machine or on several.
//
// As engine.h a border that shows no type of libtorch's.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weft {

/// Which of several processes this one is, and where they meet.
struct Meeting {
  int rank = 0;
  int world = 1;
  std::string host = "127.0.0.1";
  int port = 29500;
  bool hosted = false;  // somebody else (torchrun) keeps the meeting place; else rank 0 does
  std::string prefix;   // of what is left there
  /// How long another process may stay silent within a step; ten times as long at Pace::kOwn. One that ends is noticed
  /// at once.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  bool cuda = false;  // gradients lie on a CUDA device: NCCL carries them, else Gloo
};

/// What processes do when they are waited for: all the same step of training, or each its own part of something long:
/// to start, to read pictures, to judge a model, to write files.
enum class Pace { kStep, kOwn };

/// All of them call the same functions in the same order. Each function throws Error, in one line, when another process
/// does not answer; `what` names there what was waited for.
class Processes {
 public:
  virtual ~Processes() = default;

  virtual int rank() const = 0;
  virtual int world() const = 0;
  /// The text of rank 0, in all. At their own pace.
  virtual std::string share(std::string_view text, std::string_view what) = 0;
  /// All texts, by rank, in all. At their own pace.
  virtual std::vector<std::string> gather(std::string_view text, std::string_view what) = 0;
  /// Replaces values by their sums over all processes: the same bits in all.
  virtual void sum(std::span<double> values, Pace pace, std::string_view what) = 0;
};

/// A process that has nobody to talk to.
class Alone final : public Processes {
 public:
  int rank() const override { return 0; }
  int world() const override { return 1; }
  std::string share(std::string_view text, std::string_view) override { return std::string(text); }
  std::vector<std::string> gather(std::string_view text, std::string_view) override { return {std::string(text)}; }
  void sum(std::span<double>, Pace, std::string_view) override {}
};

/// Meets the others, through libtorch's c10d. Throws as load_torch_engine does; UnsupportedError where libtorch, or
/// this build of weft, cannot talk to other processes; Error when the others do not come.
std::shared_ptr<Processes> load_torch_processes(const Meeting& meeting);

}  // namespace weft

/// As weft_make_torch_engine.
extern "C" weft::Processes* weft_make_torch_processes(const char* version, const weft::Meeting& meeting);
