#include "bench_language.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>

#include "kernel/memory_rate.h"
#include "statistics.h"
#include "weft/language.h"

namespace weft::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kPrompt = 256;  // tokens that are read as one piece
constexpr int kGenerated = 8;          // tokens of a turn
constexpr int kFewestTurns = 5;

double seconds_of(const std::function<void()>& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One combination, and what was measured of it turn by turn.
class Subject {
 public:
  Subject(std::string name, const Model& model, int threads, DType dtype, std::int64_t max_memory)
      : name_(std::move(name)),
        workers_(threads),
        session_(model, {.threads = threads, .dtype = dtype, .max_memory = max_memory}),
        state_(session_.start()) {
    turn({});
    prefill_.clear();  // those were to warm up
    generate_.clear();
    memory_.clear();
    share_.clear();
    seconds_ = 0;
  }

  void turn(const std::unique_ptr<MemoryRate>& memory) {
    const auto vocabulary = session_.model().vocab_size();
    const double rate = memory ? memory->measure(workers_) : 1;
    const double generating = seconds_of([&] {
      for (int i = 0; i < kGenerated; ++i) {
        const std::int32_t token = ++next_ % vocabulary;
        session_.read({&token, 1}, state_);
      }
    });
    std::vector<std::int32_t> prompt(kPrompt);
    for (std::int32_t& token : prompt) token = ++next_ % vocabulary;
    const double reading = seconds_of([&] { session_.read(prompt, state_); });
    prefill_.push_back(kPrompt / reading);
    generate_.push_back(kGenerated / generating);
    memory_.push_back(rate);
    share_.push_back(static_cast<double>(session_.bytes_per_token()) * generate_.back() / rate);
    seconds_ += generating + reading;
  }

  double seconds() const { return seconds_; }

  void print(bool json) const {
    const std::int64_t bytes = session_.bytes_per_token();
    const std::int64_t working = session_.working_bytes(kPrompt);
    if (json) {
      print_json({{"model", name_},
                  {"dtype", dtype_text(session_.dtype())},
                  {"threads", session_.threads()},
                  {"turns", generate_.size()},
                  {"prefill_tokens_per_second", median(prefill_)},
                  {"generate_tokens_per_second", median(generate_)},
                  {"generate_p10", quantile(generate_, 0.1)},
                  {"generate_p90", quantile(generate_, 0.9)},
                  {"bytes_per_token", bytes},
                  {"machine_bytes_per_second", median(memory_)},
                  {"share", median(share_)},
                  {"share_p10", quantile(share_, 0.1)},
                  {"share_p90", quantile(share_, 0.9)},
                  {"working_bytes", working}});
      return;
    }
    fmt::print("{:<24}{:>5}{:>4}{:>10.1f}{:>10.1f} ({:.1f} … {:.1f}){:>11}{:>9.1f}{:>6.0f} % ({:.0f} … {:.0f}){:>11}\n",
               one_line(name_), dtype_text(session_.dtype()), session_.threads(), median(prefill_), median(generate_),
               quantile(generate_, 0.1), quantile(generate_, 0.9), bytes_text(double(bytes)), median(memory_) / 1e9,
               100 * median(share_), 100 * quantile(share_, 0.1), 100 * quantile(share_, 0.9),
               bytes_text(double(working)));
    std::fflush(stdout);
  }

 private:
  std::string name_;
  Workers workers_;
  LanguageSession session_;
  LanguageState state_;
  std::int32_t next_ = 0;
  double seconds_ = 0;
  std::vector<double> prefill_, generate_, memory_, share_;
};

}  // namespace

void bench_language(const LanguageBench& bench) {
  if (!bench.json) {
    fmt::print("{:<24}{:>5}{:>4}{:>10}{:>10} (p10 … p90){:>13}{:>9}{:>14}{:>17}\n", "model", "type", "thr", "prefill/s",
               "tokens/s", "read/token", "GB/s", "share", "working");
  }
  const auto memory = std::make_unique<MemoryRate>();
  for (const std::string& name : bench.models) {
    const Model model = load_or_create(name, bench.load);
    std::vector<std::unique_ptr<Subject>> subjects;
    for (const int threads : bench.threads) {
      for (const DType dtype : bench.dtypes) {
        subjects.push_back(std::make_unique<Subject>(name, model, threads, dtype, bench.max_memory));
      }
    }
    const auto done = [&](const auto& subject) { return subject->seconds() >= bench.min_time; };
    for (int turn = 0; turn < kFewestTurns || !std::ranges::all_of(subjects, done); ++turn) {
      for (const auto& subject : subjects) subject->turn(memory);
    }
    for (const auto& subject : subjects) subject->print(bench.json);
  }
}

}  // namespace weft::cli
