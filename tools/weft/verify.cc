// weft verify: reference cases against an engine.
#include "verify/verify.h"

#include "arguments.h"
#include "commands.h"

namespace weft::cli {
namespace {

struct Options {
  std::vector<std::string> folders;
  std::string engine = "cpu";
  std::string device = "cpu";
  std::string dtype = "f32";
  int threads = 0;
  bool gradients = false;
  bool every = false;
  bool json = false;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("DIR", o.folders, "Folders with a meta.json")->required()->type_name("");
  app.add_option(
         "--engine", o.engine,
         "cpu, what sessions use, torch, which is libtorch in f32, or reference, naive loops in double precision")
      ->check(CLI::IsMember({"cpu", "torch", "reference"}))
      ->capture_default_str();
  app.add_flag("--grad", o.gradients, "Compare gradients as well, of the cases that have some (--engine torch only)");
  app.add_option("--device", o.device, "What libtorch computes on: cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  declare_dtype(app, o.dtype);
  app.add_flag("--all", o.every, "Print every array compared, not only the worst of a case");
  declare_threads(app, o.threads);
  declare_json(app, o.json);
  app.footer(
      "Prints a line for each case: the error max |got - want| / (max |want| + 1e-6) of its worst array and the\n"
      "tolerance that the case states; in bf16 and int8 the error to be expected of a model's rounded products comes "
      "on\n"
      "top (docs/reference_cases.md). Exit code 1 when any case fails or cannot be run.\n\n"
      "JSON, per case: {\"case\", \"system\", \"engine\", \"dtype\", \"pass\", \"worst\": {\"name\", \"error\", "
      "\"tolerance\"},\n"
      "\"checks\": […]}, or {\"case\", \"pass\": false, \"error\"} for one that cannot be run (told on stderr as "
      "well).\n\n"
      "Examples:\n"
      "  weft verify tests/golden/*\n"
      "  weft verify --dtype int8 tests/golden/vrwkv-*\n"
      "  weft verify --engine reference --all tests/golden/vrwkv-plain\n"
      "  weft verify --engine torch --grad tests/golden/vrwkv-*");
}

Json to_json(const VerifyCheck& check) {
  return {{"name", check.name}, {"error", check.error}, {"tolerance", check.tolerance}};
}

void print(const VerifyResult& result, const Options& o, std::string_view dtype) {
  const VerifyCheck& worst = result.worst();
  if (o.json) {
    Json checks = Json::array();
    for (const VerifyCheck& check : result.checks) checks.push_back(to_json(check));
    print_json({{"case", result.name},
                {"system", result.system},
                {"engine", o.engine},
                {"dtype", dtype},
                {"pass", result.passed()},
                {"worst", to_json(worst)},
                {"checks", checks}});
    return;
  }
  fmt::print("{}  {:<36} {} {}  error {:.2e}  tolerance {:.0e}  {}\n", result.passed() ? "pass" : "FAIL", result.name,
             o.engine, dtype, worst.error, worst.tolerance, worst.name);
  if (!o.every) return;
  for (const VerifyCheck& check : result.checks) {
    fmt::print("  {}  error {:.2e}  tolerance {:.0e}  {}\n", check.passed() ? "pass" : "FAIL", check.error,
               check.tolerance, check.name);
  }
}

VerifyOptions verify_options(const Options& o) {
  VerifyOptions options{.threads = o.threads, .dtype = parse_dtype(o.dtype, "--dtype"), .gradients = o.gradients};
  if (o.engine == "torch") options.engine = Engine::kTorch;
  if (o.engine == "reference") options.engine = Engine::kReference;
  if (options.engine == Engine::kReference && options.dtype != DType::kF32) {
    fail_usage("--dtype is about the cpu engine; the reference engine computes in double precision");
  }
  if (options.engine == Engine::kTorch && options.dtype != DType::kF32) {
    fail_usage("--dtype is about the cpu engine; the torch engine computes in f32");
  }
  if (options.engine != Engine::kTorch && o.gradients) {
    fail_usage("--grad needs --engine torch; the {} engine does not differentiate", o.engine);
  }
  if (options.engine != Engine::kTorch && o.device != "cpu") {
    fail_usage("--device {} needs --engine torch; the {} engine runs on the CPU", o.device, o.engine);
  }
  if (options.engine == Engine::kTorch) {
    options.torch = load_torch_engine({.dtype = DType::kF32, .cuda = o.device == "cuda", .threads = o.threads});
  }
  return options;
}

int run(const Options& o) {
  const VerifyOptions options = verify_options(o);
  const std::string_view dtype = options.engine == Engine::kReference ? "f64" : dtype_text(options.dtype);
  bool all_passed = true;
  for (const std::string& folder : o.folders) {
    try {
      const VerifyResult result = verify_case(folder, options);
      print(result, o, dtype);
      all_passed = all_passed && result.passed();
    } catch (const std::exception& error) {
      all_passed = false;
      std::string what = error.what();
      if (what.find(folder) == std::string::npos) what = fmt::format("{}: {}", folder, what);
      if (o.json) print_json({{"case", folder}, {"pass", false}, {"error", what}});
      print_error(what);
    }
  }
  return all_passed ? kOk : kFailure;
}

}  // namespace

void add_verify(CLI::App& app, Action& action) {
  add_command(app, action, "verify", "Run reference cases and compare with the official results", declare, run);
}

}  // namespace weft::cli
