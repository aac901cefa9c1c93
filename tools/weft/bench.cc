// weft bench: time and memory of whole models.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <numeric>

#include "api/model_data.h"
#include "bench_child.h"
#include "commands.h"
#include "progress.h"

namespace weft::cli {
namespace {

constexpr std::size_t kMinRuns = 5;
constexpr std::size_t kMaxRuns = 10000;

struct Options {
  std::vector<std::string> models;
  std::string sizes, batches = "1", threads = "0";
  LoadArguments load;
  double min_time = 1;
  std::string csv;
  bool json = false;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("MODEL", o.models, "Presets (with random weights; see `weft models`) or checkpoint files")
      ->required()
      ->type_name("PRESET|FILE");
  app.add_option("--size", o.sizes, "Sizes of the pictures, separated by commas (default: as in `weft info`)")
      ->type_name("N|HxW,...");
  app.add_option("--batch", o.batches, "Pictures per run, separated by commas (default 1)")->type_name("N,...");
  app.add_option("--threads", o.threads, "Numbers of threads, separated by commas; 0: one per core (default)")
      ->type_name("N,...");
  o.load.declare(app);
  app.add_option("--min-time", o.min_time, "Seconds to measure each combination for, at least (default 1)")
      ->type_name("S")
      ->check(CLI::Range(0.0, 3600.0));
  app.add_option("--csv", o.csv, "Write the figures to this file as well")->type_name("FILE");
  declare_json(app, o.json);
  app.footer(
      "Measures every combination of model, size, batch and threads, from normalised input to logits (a bare "
      "backbone:\n"
      "to features). Each combination lives in a process of its own, warms up with one run, and is then timed 5 times\n"
      "or more until --min-time is filled. Combinations of one size take turns, run by run, so that what else the\n"
      "machine does falls on all of them alike; only one runs at any time. Printed are the median, the 10th and 90th\n"
      "percentile, GFLOP/s (two operations per multiply-accumulate over the median), pictures per second, the working\n"
      "memory of a run beside the weights, and the peak resident memory of the whole process (VmHWM), loading "
      "included.\n"
      "From three sizes on, the exponent of time over tokens is fitted (least squares of the logarithms; 1 is "
      "linear).\n"
      "JSON, per combination: {\"model\", \"height\", \"width\", \"tokens\", \"batch\", \"threads\", \"runs\", "
      "\"median_ms\",\n"
      "\"p10_ms\", \"p90_ms\", \"macs\", \"gflops\", \"pictures_per_second\", \"working_bytes\", "
      "\"peak_resident_bytes\"}, or\n"
      "{\"model\", …, \"error\"}; per fit: {\"model\", \"batch\", \"threads\", \"sizes\", \"exponent\"}.\n\n"
      "Examples:\n"
      "  weft bench vrwkv_tiny\n"
      "  weft bench vrwkv_tiny vrwkv_small --size 224,512,1024 --threads 1,2 --csv figures.csv\n"
      "  weft bench model.safetensors --size 480x640 --batch 1,8 --json");
}

struct Measurement {
  BenchCase what;
  BenchFacts facts;
  std::vector<double> seconds = {};
  std::int64_t peak_bytes = 0;
  std::string error = {};

  // Linear interpolation between the closest ranks.
  double quantile(double q) const {
    std::vector<double> sorted = seconds;
    std::ranges::sort(sorted);
    const double position = q * static_cast<double>(sorted.size() - 1);
    const auto low = static_cast<std::size_t>(position);
    const std::size_t high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (position - static_cast<double>(low)) * (sorted[high] - sorted[low]);
  }
  double median() const { return quantile(0.5); }
  double gflops() const { return 2e-9 * static_cast<double>(facts.macs) / median(); }
  double rate() const { return what.batch / median(); }
};

Json to_json(const Measurement& m) {
  Json json = {{"model", m.what.model},
               {"height", m.what.size.height},
               {"width", m.what.size.width},
               {"batch", m.what.batch},
               {"threads", m.error.empty() ? m.facts.threads : m.what.threads}};
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
               {"gflops", m.gflops()},
               {"pictures_per_second", m.rate()},
               {"working_bytes", m.facts.working_bytes},
               {"peak_resident_bytes", m.peak_bytes}});
  return json;
}

constexpr std::string_view kRow = "{:<22}{:>10}{:>6}{:>8}{:>11}{:>21}{:>9}{:>11}{:>12}{:>12}\n";

void print_header() {
  fmt::print(kRow, "model", "size", "batch", "threads", "median ms", "p10 – p90 ms", "GFLOP/s", "pictures/s", "working",
             "peak RSS");
}

void print_row(const Measurement& m) {
  const BenchCase& c = m.what;
  fmt::print(kRow, one_line(std::filesystem::path(c.model).filename().string()),
             fmt::format("{}x{}", c.size.height, c.size.width), c.batch, m.facts.threads,
             fmt::format("{:.2f}", 1e3 * m.median()),
             fmt::format("{:.2f} – {:.2f}", 1e3 * m.quantile(0.1), 1e3 * m.quantile(0.9)),
             fmt::format("{:.1f}", m.gflops()), fmt::format("{:.1f}", m.rate()),
             bytes_text(static_cast<double>(m.facts.working_bytes)), bytes_text(static_cast<double>(m.peak_bytes)));
}

// The combinations that the options name, those of one size together, sizes in the order given.
std::vector<std::vector<BenchCase>> cases_of(const Options& o) {
  std::vector<Size> sizes;
  if (!o.sizes.empty()) {
    for (const std::string& part : split_list(o.sizes, "--size")) sizes.push_back(parse_size(part, "--size"));
  }
  const std::vector<int> batches = parse_ints(o.batches, "--batch", 1, 65536);
  const std::vector<int> threads = parse_ints(o.threads, "--threads", 0, 1024);
  const LoadOptions load = o.load.options();
  std::vector<std::vector<BenchCase>> groups;
  const auto add = [&](const BenchCase& bench_case) {
    const auto group = std::ranges::find_if(groups, [&](const auto& g) { return g.front().size == bench_case.size; });
    auto& cases = group != groups.end() ? *group : groups.emplace_back();
    if (std::ranges::find(cases, bench_case) == cases.end()) cases.push_back(bench_case);
  };
  for (const std::string& model : o.models) {
    std::vector<Size> its_sizes = sizes;
    const bool file = is_file(model);
    if (its_sizes.empty()) {
      its_sizes.push_back(
          usual_size(file ? *load_model(model, load).data().architecture : *configure_preset(model, load)));
    }
    for (const Size& size : its_sizes) {
      for (const int batch : batches) {
        for (const int count : threads) add({model, load, size, batch, count});
      }
    }
  }
  return groups;
}

// Runs the combinations of one size in turns.
std::vector<Measurement> measure(const std::vector<BenchCase>& cases, double min_time, Progress& progress) {
  std::vector<Measurement> measurements;
  std::vector<std::optional<BenchChild>> children(cases.size());
  for (const BenchCase& bench_case : cases) {
    measurements.push_back({.what = bench_case, .facts = {}});
    Measurement& m = measurements.back();
    auto& child = children[measurements.size() - 1];
    const auto& [height, width] = bench_case.size;
    progress.note(fmt::format("{} at {}x{}: preparing", one_line(bench_case.model), height, width));
    try {
      m.facts = child.emplace(bench_case).warm_up();  // one after the other: only one process works at any time
    } catch (const Error& error) {
      m.error = error.what();
      child.reset();
    }
  }
  for (bool more = true; more;) {
    more = false;
    for (std::size_t i = 0; i < children.size(); ++i) {
      Measurement& m = measurements[i];
      const double spent = std::accumulate(m.seconds.begin(), m.seconds.end(), 0.0);
      const bool enough = m.seconds.size() >= kMinRuns && (spent >= min_time || m.seconds.size() >= kMaxRuns);
      if (!children[i] || enough) continue;
      try {
        m.seconds.push_back(children[i]->time_once());
        more = true;
      } catch (const Error& error) {
        m.error = error.what();
        children[i].reset();
      }
      progress.note(fmt::format("{} at {}x{}: run {}", one_line(m.what.model), m.what.size.height, m.what.size.width,
                                m.seconds.size()));
    }
  }
  for (std::size_t i = 0; i < children.size(); ++i) {
    if (children[i]) measurements[i].peak_bytes = children[i]->peak_resident_bytes();
  }
  return measurements;
}

// Slope of log(time) over log(tokens).
double fit_exponent(const std::vector<const Measurement*>& points) {
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  const auto n = static_cast<double>(points.size());
  const auto x = [](const Measurement* m) { return std::log(static_cast<double>(m->facts.tokens)); };
  const auto y = [](const Measurement* m) { return std::log(m->median()); };
  for (const Measurement* m : points) {
    mean_x += x(m) / n;
    mean_y += y(m) / n;
  }
  for (const Measurement* m : points) {
    xx += (x(m) - mean_x) * (x(m) - mean_x);
    xy += (x(m) - mean_x) * (y(m) - mean_y);
  }
  return xy / xx;
}

// One line per model, batch and threads that was measured at three sizes or more.
void print_fits(const std::vector<Measurement>& all, bool json) {
  std::vector<const Measurement*> done;
  for (const Measurement& first : all) {
    const auto alike = [&](const Measurement* m) {
      return m->what.model == first.what.model && m->what.batch == first.what.batch &&
             m->what.threads == first.what.threads;
    };
    if (!first.error.empty() || std::ranges::any_of(done, alike)) continue;
    done.push_back(&first);
    std::vector<const Measurement*> points;
    std::vector<std::int64_t> tokens;
    for (const Measurement& m : all) {
      if (!m.error.empty() || !alike(&m)) continue;
      points.push_back(&m);
      if (std::ranges::find(tokens, m.facts.tokens) == tokens.end()) tokens.push_back(m.facts.tokens);
    }
    if (tokens.size() < 3) continue;
    const double exponent = fit_exponent(points);
    if (json) {
      print_json({{"model", first.what.model},
                  {"batch", first.what.batch},
                  {"threads", first.facts.threads},
                  {"sizes", points.size()},
                  {"exponent", exponent}});
    } else {
      fmt::print("{}, batch {}, {} threads: time ~ tokens^{:.3f} over {} sizes\n", one_line(first.what.model),
                 first.what.batch, first.facts.threads, exponent, points.size());
    }
  }
}

// Text as a CSV field (RFC 4180).
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

void write_csv(std::ostream& csv, const Measurement& m, bool header) {
  if (!m.error.empty()) return;
  std::string names, values;
  const Json fields = to_json(m);
  for (const auto& [name, value] : fields.items()) {
    names += (names.empty() ? "" : ",") + name;
    values += (values.empty() ? "" : ",") + (value.is_string() ? csv_field(value.get<std::string>()) : value.dump());
  }
  if (header) csv << names << "\n";
  csv << values << "\n" << std::flush;
}

int run(const Options& o) {
  std::signal(SIGPIPE, SIG_IGN);  // a child that died is an error of its combination
  const std::vector<std::vector<BenchCase>> groups = cases_of(o);
  std::ofstream csv;
  if (!o.csv.empty()) {
    csv.open(o.csv);
    if (!csv) throw IoError(fmt::format("{}: cannot be written", o.csv));
  }
  Progress progress(-1);
  std::vector<Measurement> all;
  bool failed = false;
  bool header = true;
  for (const auto& group : groups) {
    for (Measurement& m : measure(group, o.min_time, progress)) {
      progress.clear();
      if (o.json) print_json(to_json(m));
      if (!m.error.empty()) {
        print_error(m.error);
        failed = true;
      } else {
        if (!o.json && header) print_header();
        if (!o.json) print_row(m);
        if (csv.is_open()) write_csv(csv, m, header);
        header = false;
      }
      all.push_back(std::move(m));
    }
    std::fflush(stdout);
  }
  print_fits(all, o.json);
  if (csv.is_open() && !csv) throw IoError(fmt::format("{}: cannot be written to the end", o.csv));
  return failed ? kFailure : kOk;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  add_command(app, action, "bench", "Time and memory of whole models", declare, run);
}

}  // namespace weft::cli
