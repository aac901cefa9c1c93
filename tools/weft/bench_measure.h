// Runs combinations in turns, so that what else the machine does falls on all of them alike.
#pragma once

#include <optional>
#include <vector>

#include "peer.h"
#include "progress.h"
#include "statistics.h"

namespace weft::cli {

/// How much longer the peer took, run by run.
struct Ratio {
  double median = 0;  // of the peer's median over this one's
  double p10 = 0;     // of the ratios of runs that followed each other
  double p90 = 0;
};

struct Measurement {
  BenchCase what;
  BenchFacts facts = {};
  std::vector<double> seconds = {};
  std::int64_t peak_bytes = 0;
  double machine_rate = 0;          // operations/s, the machine's own peak in the meantime; 0: not known
  std::optional<Ratio> ratio = {};  // where there was a peer
  std::string error = {};

  double median() const { return cli::median(seconds); }
  double quantile(double q) const { return cli::quantile(seconds, q); }
  /// Operations/s, two per multiply-accumulate.
  double rate() const { return 2.0 * static_cast<double>(facts.macs) / median(); }
  double pictures_per_second() const { return what.batch / median(); }
  /// Of the machine's peak; 0 where that is not known.
  double share() const { return machine_rate > 0 ? rate() / machine_rate : 0; }
};

/// Measures the combinations, each in a process of its own, 5 times or more until each has run for `min_time` seconds.
/// The machine's peak for their types and threads is measured once a round. `peer` is null without peers among them.
std::vector<Measurement> measure(const std::vector<BenchCase>& cases, const Peer* peer, double min_time,
                                 Progress& progress);

}  // namespace weft::cli
