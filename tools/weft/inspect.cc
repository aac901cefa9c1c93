// weft inspect: what is in a checkpoint, and what weft makes of it.
#include <map>

#include "api/model_data.h"
#include "arguments.h"
#include "commands.h"
#include "io/checkpoint.h"

namespace weft::cli {
namespace {

struct Options {
  std::string file;
  LoadArguments load;
  bool tensors = false;
  bool json = false;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("FILE", o.file, "Checkpoint: safetensors or PyTorch")->required();
  o.load.declare(app);
  app.add_flag("--tensors", o.tensors, "List every tensor (JSON always does)");
  declare_json(app, o.json);
  app.footer(
      "Options marked with * are assumed: the file does not tell them, --set overrides them. A file that is read but "
      "is\n"
      "no model weft knows, or whose tensors do not fit, is still shown; the reason then stands on stderr and the "
      "exit\n"
      "code is 1. JSON: {\"file\", \"format\", \"section\", \"sections\", \"tensors\": [{\"name\", \"dtype\", "
      "\"shape\"}], "
      "\"parameters\",\n"
      "\"bytes\", \"metadata\", \"family\", \"findings\": [{\"option\", \"value\", \"reason\", \"assumed\"}], "
      "\"config\",\n"
      "\"error\"}; what is not known is absent.\n\n"
      "Examples:\n"
      "  weft inspect checkpoint.pth\n"
      "  weft inspect --section ema --tensors checkpoint.pth");
}

// What weft makes of the file; `problem` is empty for a model that can be used.
struct Verdict {
  std::string family;
  std::string title;
  Json config;
  std::vector<Finding> findings;
  std::string problem;
};

Verdict judge(const Checkpoint& file, const Options& o) {
  Verdict verdict;
  try {
    const LoadOptions load = o.load.options();
    TensorIndex index;
    for (const auto& [name, tensor] : file.tensors) index.emplace(name, tensor.type());
    for (const Family& family : families()) {
      // Also where the weights turn out not to fit: why they were taken for this family is what helps then.
      const auto recognition = family.recognise(index, overrides_of(load));
      if (!recognition) continue;
      verdict.family = family.name;
      verdict.findings = recognition->findings;
      break;
    }
    const Model model = Model::load(o.file, load);
    verdict.family = model.family();
    verdict.findings = model.data().findings;
    verdict.config = model.data().architecture->config();
  } catch (const Error& error) {
    verdict.problem = error.what();
  }
  if (!verdict.family.empty()) verdict.title = find_family(verdict.family).title;
  return verdict;
}

struct Totals {
  std::int64_t elements = 0;
  std::size_t bytes = 0;
  std::map<std::string_view, std::int64_t> tensors_by_type;
};

Totals totals_of(const Checkpoint& file) {
  Totals totals;
  for (const auto& [name, tensor] : file.tensors) {
    totals.elements += tensor.elements();
    totals.bytes += tensor.bytes();
    ++totals.tensors_by_type[name_of(tensor.dtype())];
  }
  return totals;
}

Json to_json(const Checkpoint& file, const Verdict& verdict, const Options& o) {
  const Totals totals = totals_of(file);
  Json json = {{"file", o.file}, {"format", file.format}};
  if (!file.section.empty()) json["section"] = file.section;
  if (!file.sections.empty()) json["sections"] = file.sections;
  Json& tensors = json["tensors"] = Json::array();
  for (const auto& [name, tensor] : file.tensors) {
    const auto extents = tensor.shape().extents();
    tensors.push_back(
        {{"name", name}, {"dtype", name_of(tensor.dtype())}, {"shape", std::vector(extents.begin(), extents.end())}});
  }
  json["parameters"] = totals.elements;
  json["bytes"] = totals.bytes;
  json["metadata"] = file.metadata;
  if (!verdict.family.empty()) json["family"] = verdict.family;
  Json& findings = json["findings"] = Json::array();
  for (const Finding& f : verdict.findings) {
    findings.push_back({{"option", f.option}, {"value", f.value}, {"reason", f.reason}, {"assumed", f.assumed}});
  }
  if (!verdict.config.is_null()) json["config"] = verdict.config;
  if (!verdict.problem.empty()) json["error"] = verdict.problem;
  return json;
}

void print_contents(const Checkpoint& file, const Options& o) {
  constexpr std::size_t kMetadataLimit = 160;
  const Totals totals = totals_of(file);
  std::string types;
  for (const auto& [type, count] : totals.tensors_by_type) {
    types += fmt::format("{}{} {}", types.empty() ? "" : ", ", grouped(count), type);
  }
  fmt::print("{}: {}\n", one_line(o.file), file.format);
  if (!file.section.empty()) fmt::print("  {:<12}{}\n", "section", one_line(file.section));
  if (file.sections.size() > 1) {
    fmt::print("  {:<12}{}\n", "of sections", one_line(fmt::format("{}", fmt::join(file.sections, ", "))));
  }
  fmt::print("  {:<12}{} ({})\n", "tensors", grouped(static_cast<std::int64_t>(file.tensors.size())), types);
  fmt::print("  {:<12}{}\n", "elements", grouped(totals.elements));
  fmt::print("  {:<12}{}\n", "bytes", bytes_text(static_cast<double>(totals.bytes)));
  if (file.metadata.is_object() && !file.metadata.empty()) {
    fmt::print("\n  metadata\n");
    for (const auto& [key, value] : file.metadata.items()) {
      const std::string text = value.is_string() ? value.get<std::string>() : dump(value);
      fmt::print("    {} = {}\n", printable(key), printable(text, kMetadataLimit));
    }
  }
  if (!o.tensors) return;
  fmt::print("\n  tensors\n");
  for (const auto& [name, tensor] : file.tensors) fmt::print("    {:<52} {}\n", printable(name), tensor.type());
}

void print_verdict(const Verdict& verdict) {
  if (verdict.family.empty()) return;
  fmt::print("\n  {} as {} ({})\n", verdict.findings.empty() ? "declares itself" : "recognised", verdict.family,
             verdict.title);
  for (const Finding& finding : verdict.findings) {
    fmt::print("   {} {} = {}: {}\n", finding.assumed ? '*' : ' ', finding.option, one_line(finding.value),
               one_line(finding.reason));
  }
  if (!verdict.findings.empty() || verdict.config.is_null()) return;
  for (const auto& [key, value] : verdict.config.items()) fmt::print("     {} = {}\n", key, value.dump());
}

int run(const Options& o) {
  (void)o.load.options();  // a --set that is no KEY=VALUE is told before the file is read
  std::error_code error;
  if (!std::filesystem::exists(o.file, error)) (void)load_model(o.file, {});  // throws, with the remedy
  const Checkpoint file = read_checkpoint(o.file, {.section = o.load.section});
  const Verdict verdict = judge(file, o);
  if (o.json) {
    print_json(to_json(file, verdict, o));
  } else {
    print_contents(file, o);
    print_verdict(verdict);
  }
  if (verdict.problem.empty()) return kOk;
  print_error(verdict.problem);
  return kFailure;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  add_command(app, action, "inspect", "What is in a checkpoint and what was recognised", declare, run);
}

}  // namespace weft::cli
