// weft bench: time and memory of whole models.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <optional>

#include "api/model_data.h"
#include "arguments.h"
#include "bench_language.h"
#include "bench_report.h"
#include "commands.h"
#include "io/output_file.h"

namespace weft::cli {
namespace {

struct Options {
  std::vector<std::string> models;
  std::string sizes, batches = "1", threads = "0", dtypes = "f32", max_memory;
  LoadArguments load;
  double min_time = 1;
  std::string vs;
  bool vs_spinning = false;
  bool profile = false;
  std::string csv, svg;
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
  app.add_option("--dtype", o.dtypes, "What products multiply, separated by commas: f32 (default), bf16, int8, auto")
      ->type_name("TYPE,...");
  o.load.declare(app);
  app.add_option("--min-time", o.min_time, "Seconds to measure each combination for, at least (default 1)")
      ->type_name("S")
      ->check(CLI::Range(0.0, 3600.0));
  app.add_option("--vs", o.vs,
                 fmt::format("Measure another engine beside weft, in f32: onnxruntime, on {} or on the model named",
                             Peer::kModel))
      ->type_name("onnxruntime[:PRESET|FILE]");
  app.add_flag("--vs-spinning", o.vs_spinning, "The other engine's threads wait in loops instead of sleeping");
  app.add_flag("--profile", o.profile, "Tell what a run of weft's spends its threads' time on, operator by operator");
  declare_max_memory(app, o.max_memory);
  app.add_option("--csv", o.csv, "Write the figures to this file as well")->type_name("FILE");
  app.add_option("--svg", o.svg, "Draw time and peak memory against the pictures' side into this file")
      ->type_name("FILE");
  declare_json(app, o.json);
  app.footer(
      "Measures every combination of model, size, batch, threads and type, from normalised input to logits (a bare\n"
      "backbone: to features). Each combination lives in a process of its own, warms up with one run, and is then\n"
      "timed 5 times or more until --min-time is filled. Combinations of one size take turns, run by run, so that\n"
      "what else the machine does falls on all of them alike; only one runs at any time. Printed are the median, the\n"
      "10th and 90th percentile, GFLOP/s (two operations per multiply-accumulate over the median), the machine's own\n"
      "peak (products of prepacked matrices in the same type on as many threads, measured between the runs) and the\n"
      "share of it, pictures per second, the working memory of a run beside the weights, and the peak resident memory\n"
      "of the whole process (VmHWM), loading included.\n"
      "From three sizes on, the exponents of time and peak memory over tokens are fitted (least squares of the\n"
      "logarithms; 1 is linear).\n"
      "--profile makes ten more runs that measure themselves: milliseconds of thread time in a run, rate of products, "
      "bytes\n"
      "of all inputs and outputs over that time (where steps run tile by tile, most of them never leave the cache).\n"
      "--vs needs Node.js with the npm package onnxruntime-node (`npm install --ignore-scripts onnxruntime-node`, its\n"
      "node_modules named in NODE_PATH or beside the script, whose folder WEFT_PEERS names where it is not found).\n"
      "The last column tells how much longer the other engine takes: the ratio of the medians, and the 10th and 90th\n"
      "percentile of the ratios of runs that followed each other. Its peak memory includes Node.js. When it fails, "
      "the\n"
      "others are measured all the same, and the exit status is theirs.\n"
      "Language models: tokens a second of reading a prompt in pieces of 256 and of generating, turn by turn; what\n"
      "generating reads of weights for each token; how fast the machine reads memory, on as many threads and measured "
      "in\n"
      "each turn; and the share of that. JSON: {\"model\", \"dtype\", \"threads\", \"turns\",\n"
      "\"prefill_tokens_per_second\", \"generate_tokens_per_second\", \"generate_p10\", \"generate_p90\",\n"
      "\"bytes_per_token\", \"machine_bytes_per_second\", \"share\", \"share_p10\", \"share_p90\", "
      "\"working_bytes\"}.\n"
      "JSON, per combination of pictures: {\"model\", \"engine\", \"height\", \"width\", \"batch\", \"threads\", "
      "\"dtype\", "
      "\"tokens\", \"runs\",\n"
      "\"median_ms\", \"p10_ms\", \"p90_ms\", \"macs\", \"gflops\", \"pictures_per_second\", \"machine_gflops\", "
      "\"share\",\n"
      "\"working_bytes\", \"peak_resident_bytes\", \"vs\", \"vs_p10\", \"vs_p90\", \"profile\": [{\"operation\", "
      "\"steps\", \"ms\",\n"
      "\"macs\", \"bytes\"}]}, without what is not known, or "
      "{\"model\", …,\n"
      "\"error\"}; per fit: {\"model\", \"engine\", \"batch\", \"threads\", \"dtype\", \"sizes\", \"exponent\", "
      "\"memory_exponent\"}.\n\n"
      "Examples:\n"
      "  weft bench vrwkv_tiny --dtype f32,bf16,int8\n"
      "  weft bench vrwkv_tiny vrwkv_small --size 224,512,1024 --threads 1,2 --csv figures.csv --svg figures.svg\n"
      "  weft bench vrwkv_tiny --size 224,512,1024,2048 --vs onnxruntime\n"
      "  weft bench rwkv4_169m --dtype f32,bf16,int8 --threads 1,2\n"
      "  weft bench model.safetensors --size 480x640 --batch 1,8 --json");
}

// The combinations that the options name, those of one size together, sizes in the order given.
class Groups {
 public:
  void add(const BenchCase& c) {
    const auto group = std::ranges::find_if(groups_, [&](const auto& g) { return g.front().size == c.size; });
    auto& cases = group != groups_.end() ? *group : groups_.emplace_back();
    if (std::ranges::find(cases, c) == cases.end()) cases.push_back(c);
  }
  // For each combination, the peer's.
  void add_peer(const Peer& peer) {
    for (auto& group : groups_) {
      for (const BenchCase& c : std::vector(group)) {
        BenchCase beside = c;
        beside.engine = peer.name();
        beside.model = peer.model();
        beside.load = {};
        beside.dtype = DType::kF32;
        add(beside);
      }
    }
  }
  const std::vector<std::vector<BenchCase>>& all() const { return groups_; }

 private:
  std::vector<std::vector<BenchCase>> groups_;
};

using Architectures = std::vector<std::shared_ptr<const Architecture>>;

// Of each model, read once; null for a file that cannot be read: to measure it is what tells why.
Architectures architectures_of(const Options& o) {
  const LoadOptions load = o.load.options();
  Architectures result;
  for (const std::string& model : o.models) {
    if (!is_file(model)) {
      result.push_back(configure_preset(model, load));
      continue;
    }
    try {
      result.push_back(load_model(model, load).data().architecture);
    } catch (const Error&) {
      result.push_back(nullptr);
    }
  }
  return result;
}

Groups groups_of(const Options& o, const Architectures& architectures) {
  std::vector<Size> sizes;
  if (!o.sizes.empty()) {
    for (const std::string& part : split_list(o.sizes, "--size")) sizes.push_back(parse_size(part, "--size"));
  }
  const std::vector<int> batches = parse_ints(o.batches, "--batch", 1, 65536);
  const std::vector<int> threads = parse_ints(o.threads, "--threads", 0, 1024);
  const std::int64_t max_memory = parse_max_memory(o.max_memory);
  std::vector<DType> dtypes;
  for (const std::string& part : split_list(o.dtypes, "--dtype")) dtypes.push_back(parse_dtype(part, "--dtype"));
  const LoadOptions load = o.load.options();
  Groups groups;
  for (std::size_t i = 0; i < o.models.size(); ++i) {
    const std::string& model = o.models[i];
    std::vector<Size> its_sizes = sizes;
    if (its_sizes.empty()) {
      if (!architectures[i]) (void)load_model(model, load);  // says why it cannot be read
      its_sizes.push_back(usual_size(require_pictures(*architectures[i])));
    }
    for (const Size& size : its_sizes) {
      for (const int batch : batches) {
        for (const int count : threads) {
          for (const DType dtype : dtypes) groups.add({"weft", model, load, size, batch, count, dtype, max_memory});
        }
      }
    }
  }
  return groups;
}

// Where the figures go while they come in.
class Report {
 public:
  Report(const Options& o, const Groups& groups) : json_(o.json), table_(groups.all(), !o.vs.empty()) {
    if (o.csv.empty()) return;
    name_ = o.csv;
    csv_.open(o.csv);
    if (!csv_) throw IoError(fmt::format("{}: cannot be written", o.csv));
    write_csv_header(csv_);
  }
  void add(const Measurement& m) {
    if (json_) {
      print_json(to_json(m));
    } else {
      table_.row(m);
    }
    if (!m.error.empty()) print_error(m.what.peer() ? fmt::format("the peer failed: {}", m.error) : m.error);
    if (csv_.is_open()) write_csv_row(csv_, m);
    std::fflush(stdout);
  }
  void finish() {
    if (csv_.is_open() && !csv_) throw IoError(fmt::format("{}: cannot be written to the end", name_));
  }

 private:
  bool json_;
  BenchTable table_;
  std::string name_;
  std::ofstream csv_;
};

// Whether it is language models that are asked for, which are measured in their own way.
bool measure_language(const Options& o, const Architectures& architectures) {
  const auto count = std::ranges::count_if(architectures, [](const auto& a) { return a && a->language(); });
  if (count == 0) return false;
  if (count < std::ssize(o.models)) fail_usage("language models and models that read pictures are measured apart");
  const bool plain = o.sizes.empty() && o.batches == "1" && o.vs.empty() && !o.vs_spinning && !o.profile &&
                     o.csv.empty() && o.svg.empty();
  if (!plain) fail_usage("of language models --threads, --dtype, --min-time, --max-memory, --set and --json are known");
  LanguageBench bench{.models = o.models,
                      .load = o.load.options(),
                      .threads = parse_ints(o.threads, "--threads", 0, 1024),
                      .dtypes = {},
                      .min_time = o.min_time,
                      .max_memory = parse_max_memory(o.max_memory),
                      .json = o.json};
  for (const std::string& part : split_list(o.dtypes, "--dtype")) bench.dtypes.push_back(parse_dtype(part, "--dtype"));
  bench_language(bench);
  return true;
}

int run(const Options& o) {
  const Architectures architectures = architectures_of(o);
  if (measure_language(o, architectures)) return kOk;
  std::signal(SIGPIPE, SIG_IGN);  // a child that died is an error of its combination
  Groups groups = groups_of(o, architectures);
  std::optional<Peer> peer;
  if (!o.vs.empty()) {
    peer.emplace(o.vs, o.vs_spinning);
    groups.add_peer(*peer);
  } else if (o.vs_spinning) {
    fail_usage("--vs-spinning is about the engine of --vs");
  }
  std::optional<OutputFile> svg;
  if (!o.svg.empty()) svg.emplace(o.svg);
  Report report(o, groups);
  Progress progress(-1);
  std::vector<Measurement> all;
  bool failed = false;
  for (const auto& group : groups.all()) {
    for (Measurement& m : measure(group, peer ? &*peer : nullptr, o.min_time, o.profile, progress)) {
      progress.clear();
      report.add(m);
      failed |= !m.error.empty() && !m.what.peer();
      all.push_back(std::move(m));
    }
  }
  const std::vector<BenchCurve> curves = curves_of(all);
  if (peer && !o.json) fmt::print("{} {}\n", peer->name(), peer->version());
  print_fits(curves, o.json);
  report.finish();
  if (svg) {
    svg->write(to_svg(figure_of(curves)));
    svg->commit();
  }
  return failed ? kFailure : kOk;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  add_command(app, action, "bench", "Time and memory of whole models", declare, run);
}

}  // namespace weft::cli
