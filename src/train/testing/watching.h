// What watches a run in a test, and threads in the place of processes.
#pragma once

#include <algorithm>
#include <barrier>
#include <filesystem>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/json.h"
#include "io/testing/files.h"
#include "train/run.h"

namespace weft::testing {

class Listener final : public RunListener {
 public:
  void started(std::string_view) override {}
  void stepped(const StepReport& report) override { steps.push_back(report); }
  void evaluated(const EvalReport& report) override { evaluations.push_back(report); }
  void warned(std::string_view text) override { warnings.emplace_back(text); }
  bool stop_requested() override { return std::ssize(steps) == stop_at; }

  std::int64_t stop_at = -1;
  std::vector<StepReport> steps;
  std::vector<EvalReport> evaluations;
  std::vector<std::string> warnings;
};

// Lines of a log without what depends on time.
inline std::vector<Json> timeless(const std::filesystem::path& log) {
  std::vector<Json> lines;
  std::istringstream text(read_text(log));
  for (std::string line; std::getline(text, line);) {
    lines.push_back(Json::parse(line));
    for (const char* const key : {"pictures_per_second", "tokens_per_second"}) lines.back().erase(key);
  }
  return lines;
}

// Threads in the place of processes.
class ThreadProcesses final : public Processes {
 public:
  struct Shared {
    explicit Shared(int world) : arrived(world), texts(static_cast<std::size_t>(world)), values(texts.size()) {}
    std::barrier<> arrived;
    std::vector<std::string> texts;
    std::vector<std::vector<double>> values;
  };
  ThreadProcesses(int rank, std::shared_ptr<Shared> shared) : rank_(rank), shared_(std::move(shared)) {}

  int rank() const override { return rank_; }
  int world() const override { return static_cast<int>(shared_->texts.size()); }
  std::string share(std::string_view text, std::string_view what) override { return gather(text, what)[0]; }
  std::vector<std::string> gather(std::string_view text, std::string_view) override {
    shared_->texts[static_cast<std::size_t>(rank_)] = text;
    shared_->arrived.arrive_and_wait();
    std::vector<std::string> all = shared_->texts;
    shared_->arrived.arrive_and_wait();
    return all;
  }
  void sum(std::span<double> values, Pace, std::string_view) override {
    shared_->values[static_cast<std::size_t>(rank_)].assign(values.begin(), values.end());
    shared_->arrived.arrive_and_wait();
    std::ranges::fill(values, 0);
    for (const std::vector<double>& others : shared_->values) {
      for (std::size_t i = 0; i < values.size(); ++i) values[i] += others[i];
    }
    shared_->arrived.arrive_and_wait();
  }

 private:
  int rank_;
  std::shared_ptr<Shared> shared_;
};

// Calls `body` with the processes' options, one thread for each.
inline void in_threads(int world, const RunOptions& options, const std::function<void(const RunOptions&)>& body) {
  const auto shared = std::make_shared<ThreadProcesses::Shared>(world);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world; ++rank) {
    RunOptions own = options;
    own.processes = std::make_shared<ThreadProcesses>(rank, shared);
    threads.emplace_back([own, &body] { body(own); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace weft::testing
