#include "bench_measure.h"

#include <chrono>
#include <map>
#include <numeric>

namespace weft::cli {
namespace {

constexpr std::size_t kMinRuns = 5;
constexpr std::size_t kMaxRuns = 10000;

// The machine's own speed, for each type and number of threads. Takes a quarter of the time at most, once there are
// some figures.
class MachinePeaks {
 public:
  explicit MachinePeaks(const std::vector<BenchCase>& cases) {
    for (const BenchCase& c : cases) {
      if (peaks_.contains(key(c))) continue;
      auto& peak = peaks_.emplace(key(c), Peak{peak_child(c.dtype, c.threads)}).first->second;
      (void)peak.child.answer();
    }
  }
  // Beside runs that have taken so long so far.
  void measure(const BenchCase& c, double run_seconds) {
    Peak& peak = peaks_.at(key(c));
    if (peak.rates.size() >= kMinRuns && peak.spent > run_seconds / 4) return;
    const auto start = std::chrono::steady_clock::now();
    peak.rates.push_back(peak.child.ask("run", "rate"));
    peak.spent += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  double median(const BenchCase& c) const {
    const auto& rates = peaks_.at(key(c)).rates;
    return rates.empty() ? 0 : cli::median(rates);
  }

 private:
  struct Peak {
    BenchChild child;
    std::vector<double> rates = {};
    double spent = 0;  // seconds
  };
  using Key = std::pair<DType, int>;
  static Key key(const BenchCase& c) { return {c.dtype, c.threads}; }

  std::map<Key, Peak> peaks_;
};

double spent(const Measurement& m) { return std::accumulate(m.seconds.begin(), m.seconds.end(), 0.0); }

bool enough(const Measurement& m, double min_time) {
  return m.seconds.size() >= kMinRuns && (spent(m) >= min_time || m.seconds.size() >= kMaxRuns);
}

std::optional<Ratio> ratio_of(const Measurement& peer, const Measurement& own) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < std::min(peer.seconds.size(), own.seconds.size()); ++i) {
    ratios.push_back(peer.seconds[i] / own.seconds[i]);
  }
  if (ratios.empty()) return std::nullopt;
  return Ratio{.median = peer.median() / own.median(), .p10 = quantile(ratios, 0.1), .p90 = quantile(ratios, 0.9)};
}

void compare_with_peers(std::vector<Measurement>& all) {
  for (Measurement& own : all) {
    if (own.what.peer() || !own.error.empty()) continue;
    for (const Measurement& peer : all) {
      const bool alike = peer.what.peer() && peer.error.empty() && peer.what.size == own.what.size &&
                         peer.what.batch == own.what.batch && peer.what.threads == own.what.threads;
      if (alike) own.ratio = ratio_of(peer, own);
    }
  }
}

// Seconds of a run. A short one is repeated, and the first does not count: it would mostly fetch from memory what the
// others have driven out of the caches, which is not what a stream of pictures pays.
double take_turn(BenchChild& child) {
  constexpr double kShort = 0.05;
  const double first = child.ask("run", "seconds");
  return first < kShort ? child.ask("run", "seconds") : first;
}

}  // namespace

std::vector<Measurement> measure(const std::vector<BenchCase>& cases, const Peer* peer, double min_time, bool profile,
                                 Progress& progress) {
  std::vector<Measurement> all;
  std::vector<std::optional<BenchChild>> children(cases.size());
  for (const BenchCase& c : cases) {
    Measurement& m = all.emplace_back(Measurement{.what = c});
    auto& child = children[all.size() - 1];
    progress.note(fmt::format("{}: preparing", one_line(c.str())));
    try {  // one after the other: only one process works at any time
      child.emplace(c.peer() ? peer->child(c) : weft_child(c));
      m.facts = BenchFacts::from_json(child->answer());
    } catch (const Error& error) {
      m.error = error.what();
      child.reset();
    }
  }
  MachinePeaks peaks(cases);
  for (bool more = true; more;) {
    more = false;
    std::map<std::pair<DType, int>, const Measurement*> ran;
    for (std::size_t i = 0; i < children.size(); ++i) {
      Measurement& m = all[i];
      if (!children[i] || enough(m, min_time)) continue;
      try {
        m.seconds.push_back(take_turn(*children[i]));
        ran[{m.what.dtype, m.what.threads}] = &m;
        more = true;
      } catch (const Error& error) {
        m.error = error.what();
        children[i].reset();
      }
      progress.note(fmt::format("{}: run {}", one_line(m.what.str()), m.seconds.size()));
    }
    for (const auto& [key, m] : ran) peaks.measure(m->what, spent(*m));
  }
  for (std::size_t i = 0; i < children.size(); ++i) {
    if (!children[i]) continue;
    all[i].machine_rate = peaks.median(all[i].what);
    try {
      all[i].peak_bytes = static_cast<std::int64_t>(children[i]->ask("memory", "peak"));
      if (profile && !all[i].what.peer()) all[i].profile = children[i]->ask("profile")["operations"];
    } catch (const Error& error) {
      all[i].error = error.what();
    }
  }
  compare_with_peers(all);
  return all;
}

}  // namespace weft::cli
