#include "bench_report.h"

#include <cmath>
#include <ostream>
#include <set>

namespace weft::cli {
namespace {

std::string model_name(const BenchCase& c) {
  const std::string name = one_line(std::filesystem::path(c.model).filename().string());
  return c.peer() ? fmt::format("{} [{}]", name, c.engine) : name;
}

std::string threads_text(int count) { return fmt::format("{} thread{}", count, count == 1 ? "" : "s"); }

constexpr std::string_view kRow = "{:<{}}{:>10}{:>6}{:>8}{:>6}{:>11}{:>21}{:>9}{:>9}{:>7}{:>11}{:>12}{:>12}{}\n";

// "1.23 (1.20 – 1.31)"
std::string ratio_text(const Ratio& r) { return fmt::format("{:.2f} ({:.2f} – {:.2f})", r.median, r.p10, r.p90); }

std::string vs_column(bool vs, std::string_view text) { return vs ? fmt::format("{:>23}", text) : ""; }

}  // namespace

Json to_json(const Measurement& m) {
  Json json = {{"model", m.what.model},
               {"engine", m.what.engine},
               {"height", m.what.size.height},
               {"width", m.what.size.width},
               {"batch", m.what.batch},
               {"threads", m.error.empty() ? m.facts.threads : m.what.threads},
               {"dtype", dtype_text(m.what.dtype)}};
  if (!m.error.empty()) {
    json["error"] = m.error;
    return json;
  }
  json.update({{"tokens", m.facts.tokens},
               {"runs", m.seconds.size()},
               {"median_ms", 1e3 * m.median()},
               {"p10_ms", 1e3 * m.quantile(0.1)},
               {"p90_ms", 1e3 * m.quantile(0.9)},
               {"macs", m.facts.macs},
               {"gflops", 1e-9 * m.rate()},
               {"pictures_per_second", m.pictures_per_second()}});
  if (m.machine_rate > 0) json.update({{"machine_gflops", 1e-9 * m.machine_rate}, {"share", m.share()}});
  if (m.facts.working_bytes >= 0) json["working_bytes"] = m.facts.working_bytes;
  json["peak_resident_bytes"] = m.peak_bytes;
  if (m.ratio) json.update({{"vs", m.ratio->median}, {"vs_p10", m.ratio->p10}, {"vs_p90", m.ratio->p90}});
  return json;
}

BenchTable::BenchTable(const std::vector<std::vector<BenchCase>>& groups, bool vs) : vs_(vs) {
  for (const auto& group : groups) {
    for (const BenchCase& c : group) name_width_ = std::max(name_width_, model_name(c).size() + 1);
  }
}

void BenchTable::row(const Measurement& m) {
  if (std::exchange(header_, false)) {
    fmt::print(kRow, "model", name_width_, "size", "batch", "threads", "dtype", "median ms", "p10 – p90 ms", "GFLOP/s",
               "machine", "share", "pictures/s", "working", "peak RSS", vs_column(vs_, "peer/this (p10 – p90)"));
  }
  const BenchCase& c = m.what;
  const std::string size = fmt::format("{}x{}", c.size.height, c.size.width);
  if (!m.error.empty()) {
    fmt::print("{:<{}}{:>10}{:>6}{:>8}{:>6}  failed: {}\n", model_name(c), name_width_, size, c.batch, c.threads,
               dtype_text(c.dtype), one_line(m.error));
    return;
  }
  const bool machine = m.machine_rate > 0;
  fmt::print(kRow, model_name(c), name_width_, size, c.batch, m.facts.threads, dtype_text(c.dtype),
             fmt::format("{:.2f}", 1e3 * m.median()),
             fmt::format("{:.2f} – {:.2f}", 1e3 * m.quantile(0.1), 1e3 * m.quantile(0.9)),
             fmt::format("{:.1f}", 1e-9 * m.rate()), machine ? fmt::format("{:.1f}", 1e-9 * m.machine_rate) : "–",
             machine ? fmt::format("{:.0f} %", 100 * m.share()) : "–", fmt::format("{:.1f}", m.pictures_per_second()),
             m.facts.working_bytes >= 0 ? bytes_text(static_cast<double>(m.facts.working_bytes)) : "–",
             bytes_text(static_cast<double>(m.peak_bytes)), vs_column(vs_, m.ratio ? ratio_text(*m.ratio) : "–"));
}

namespace {

constexpr std::array kColumns = {"model",
                                 "engine",
                                 "height",
                                 "width",
                                 "batch",
                                 "threads",
                                 "dtype",
                                 "tokens",
                                 "runs",
                                 "median_ms",
                                 "p10_ms",
                                 "p90_ms",
                                 "macs",
                                 "gflops",
                                 "pictures_per_second",
                                 "machine_gflops",
                                 "share",
                                 "working_bytes",
                                 "peak_resident_bytes",
                                 "vs",
                                 "vs_p10",
                                 "vs_p90"};

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

void write_csv_header(std::ostream& csv) { csv << fmt::format("{}\n", fmt::join(kColumns, ",")) << std::flush; }

void write_csv_row(std::ostream& csv, const Measurement& m) {
  if (!m.error.empty()) return;
  const Json json = to_json(m);
  std::string line;
  for (const char* column : kColumns) {
    if (column != kColumns.front()) line += ",";
    if (!json.contains(column)) continue;
    line += json[column].is_string() ? csv_field(json[column].get<std::string>()) : json[column].dump();
  }
  csv << line << "\n" << std::flush;
}

std::vector<BenchCurve> curves_of(const std::vector<Measurement>& all) {
  std::vector<BenchCurve> curves;
  for (const Measurement& m : all) {
    if (!m.error.empty()) continue;
    const auto alike = [&](const BenchCurve& curve) {
      const BenchCase& c = curve.first->what;
      return c.engine == m.what.engine && c.model == m.what.model && c.batch == m.what.batch &&
             c.threads == m.what.threads && c.dtype == m.what.dtype;
    };
    auto curve = std::ranges::find_if(curves, alike);
    if (curve == curves.end()) curve = curves.insert(curves.end(), BenchCurve{.first = &m});
    curve->points.push_back(&m);
  }
  for (BenchCurve& curve : curves) {
    std::set<std::int64_t> tokens;
    std::vector<std::pair<double, double>> times, bytes;
    for (const Measurement* m : curve.points) {
      tokens.insert(m->facts.tokens);
      times.emplace_back(m->facts.tokens, m->median());
      bytes.emplace_back(m->facts.tokens, m->peak_bytes);
    }
    if (tokens.size() < 3) continue;
    curve.time_exponent = fit_exponent(times);
    curve.memory_exponent = fit_exponent(bytes);
  }
  return curves;
}

void print_fits(const std::vector<BenchCurve>& curves, bool json) {
  for (const BenchCurve& curve : curves) {
    if (!curve.time_exponent) continue;
    const BenchCase& c = curve.first->what;
    const int threads = curve.first->facts.threads;
    if (json) {
      print_json({{"model", c.model},
                  {"engine", c.engine},
                  {"batch", c.batch},
                  {"threads", threads},
                  {"dtype", dtype_text(c.dtype)},
                  {"sizes", curve.points.size()},
                  {"exponent", *curve.time_exponent},
                  {"memory_exponent", *curve.memory_exponent}});
    } else {
      fmt::print("{}, {}, batch {}, {}: time ~ tokens^{:.3f}, peak memory ~ tokens^{:.3f} over {} sizes\n",
                 model_name(c), dtype_text(c.dtype), c.batch, threads_text(threads), *curve.time_exponent,
                 *curve.memory_exponent, curve.points.size());
    }
  }
}

Figure figure_of(const std::vector<BenchCurve>& curves) {
  constexpr double kMebibyte = 1 << 20;
  Figure figure{
      .title = "Time and memory of one run",
      .x_axis = "side of the picture, pixels",
      .panels = {{.title = "median time, ms", .y_of = {}}, {.title = "peak memory of the process, MiB", .y_of = {}}}};
  for (const BenchCurve& curve : curves) {
    const BenchCase& c = curve.first->what;
    std::string name = fmt::format("{}, {}, batch {}, {}", model_name(c), dtype_text(c.dtype), c.batch,
                                   threads_text(curve.first->facts.threads));
    if (curve.time_exponent) {
      name += fmt::format(": time ~ T^{:.2f}, memory ~ T^{:.2f}", *curve.time_exponent, *curve.memory_exponent);
    }
    figure.lines.push_back(std::move(name));
    std::vector<Point> times, bytes;
    for (const Measurement* m : curve.points) {
      const double side = std::sqrt(static_cast<double>(m->what.size.height) * static_cast<double>(m->what.size.width));
      times.push_back({side, 1e3 * m->median()});
      bytes.push_back({side, static_cast<double>(m->peak_bytes) / kMebibyte});
    }
    figure.panels[0].y_of.push_back(std::move(times));
    figure.panels[1].y_of.push_back(std::move(bytes));
  }
  return figure;
}

}  // namespace weft::cli
