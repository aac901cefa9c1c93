// Measurements as a table, JSON, CSV and curves.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "bench_measure.h"
#include "figure.h"

namespace weft::cli {

Json to_json(const Measurement& m);

/// The table on stdout, as wide as these combinations need. `vs`: with the comparison.
class BenchTable {
 public:
  BenchTable(const std::vector<std::vector<BenchCase>>& groups, bool vs);
  void row(const Measurement& m);

 private:
  std::size_t name_width_ = 0;
  bool vs_;
  bool header_ = true;
};

/// RFC 4180. The columns are those of to_json for a weft row; what a row does not have is empty.
void write_csv_header(std::ostream& csv);
void write_csv_row(std::ostream& csv, const Measurement& m);

/// What was measured at several sizes, everything else alike.
struct BenchCurve {
  const Measurement* first = nullptr;
  std::vector<const Measurement*> points;
  /// Of time, and of peak memory, over tokens; only where there are three numbers of tokens or more.
  std::optional<double> time_exponent, memory_exponent;
};
std::vector<BenchCurve> curves_of(const std::vector<Measurement>& all);

/// One line per curve that was fitted.
void print_fits(const std::vector<BenchCurve>& curves, bool json);
/// Time and peak memory against the side of the pictures.
Figure figure_of(const std::vector<BenchCurve>& curves);

}  // namespace weft::cli
