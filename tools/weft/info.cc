// weft info: what a model is made of and what it costs.
#include <fmt/ranges.h>

#include <set>

#include "anatomy.h"
#include "api/model_data.h"
#include "arguments.h"
#include "commands.h"

namespace weft::cli {
namespace {

struct Options {
  std::string model;
  std::string size;
  LoadArguments load;
  bool json = false;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("MODEL", o.model, "A preset (see `weft models`) or a checkpoint file")
      ->required()
      ->type_name("PRESET|FILE");
  app.add_option("--size", o.size,
                 "Height and width of the picture to count for (default: what the published figures are for, or "
                 "the model's own)")
      ->type_name("N|HxW");
  o.load.declare(app);
  declare_json(app, o.json);
  app.footer(
      "Counts are for one picture, or one token. A multiply-accumulate is one multiplication and one addition.\n"
      "Activations are what is alive at once when operations run one by one; `weft bench` tells what the engine "
      "really\n"
      "takes.\n"
      "Repeated layers are told once, as layers.1 … layers.11; JSON lists every one.\n\n"
      "Examples:\n"
      "  weft info vrwkv_tiny\n"
      "  weft info vrwkv_base --size 512x768 --json\n"
      "  weft info vrwkv_tiny --set depth=6 --set num_classes=10");
}

// What is known about the model, with or without weights.
struct Subject {
  std::shared_ptr<const Architecture> architecture;
  std::size_t weight_bytes = 0;
  std::string weight_types;
};

Subject find_subject(const Options& o) {
  if (!is_file(o.model)) {
    return {configure_preset(o.model, for_size(o.model, o.load.options(), given_size(o.size))), 0, ""};
  }
  const Model model = load_model(o.model, o.load.options());
  Subject subject{model.data().architecture, 0, ""};
  std::set<std::string_view> types;
  for (const auto& [name, weight] : model.data().weights) {
    subject.weight_bytes += weight.bytes();
    types.insert(name_of(weight.dtype()));
  }
  subject.weight_types = fmt::format("{}", fmt::join(types, ", "));
  return subject;
}

// "backbone.layers.3" → "backbone.layers."
std::string_view stem(std::string_view name) { return name.substr(0, name.find_last_not_of("0123456789") + 1); }

bool alike(const Part& a, const Part& b) {
  return stem(a.name) == stem(b.name) && a.name != stem(a.name) && a.parameters == b.parameters && a.macs == b.macs &&
         a.parts == b.parts;
}

void print_part(const std::string& name, const Part& part) {
  fmt::print("  {:<38}{:>14}{:>12}\n", name, grouped(part.parameters), part.macs > 0 ? si(double(part.macs)) : "0");
}

void print_table(const std::vector<Part>& parts) {
  fmt::print("\n  {:<38}{:>14}{:>12}\n", "layer", "parameters", "MACs");
  for (std::size_t i = 0; i < parts.size();) {
    std::size_t end = i + 1;
    while (end < parts.size() && alike(parts[i], parts[end])) ++end;
    const Part& part = parts[i];
    const bool repeated = end - i > 1;
    const std::string_view number = std::string_view(parts[end - 1].name).substr(stem(parts[end - 1].name).size());
    print_part(repeated ? fmt::format("{} … {}, each", part.name, number) : part.name, part);
    for (const Part& within : part.parts) {
      if (within.macs > 0) print_part("  " + within.name, within);
    }
    i = end;
  }
}

Json parts_to_json(const std::vector<Part>& parts) {
  Json list = Json::array();
  for (const Part& part : parts) {
    Json entry = {{"place", part.name}, {"parameters", part.parameters}, {"macs", part.macs}};
    if (!part.parts.empty()) entry["parts"] = parts_to_json(part.parts);
    list.push_back(std::move(entry));
  }
  return list;
}

// What a recurrent model carries from token to token.
std::int64_t state_bytes(const Graph& graph) {
  std::int64_t bytes = 0;
  for (const Graph::State& state : graph.states()) bytes += static_cast<std::int64_t>(state.empty.bytes());
  return bytes;
}

int run(const Options& o) {
  const Subject subject = find_subject(o);
  const Architecture& a = *subject.architecture;
  const Family& family = find_family(a.family());
  const PictureArchitecture* const pictures = a.pictures();
  const Size size = pictures ? given_size(o.size).value_or(usual_size(*pictures)) : Size{};
  if (!pictures && !o.size.empty()) fail_usage("--size is for models that read pictures; {} reads text", a.family());
  const auto graph = pictures ? build_graph(a, {1, pictures->in_channels(), size.height, size.width}, {})
                              : build_language_graph(*a.language(), 1, 1, LogitsOf::kLast);
  const std::vector<Part> parts = parts_of(*graph);
  const std::int64_t parameters = graph->parameter_count();
  const std::int64_t macs = graph->macs();
  const std::int64_t live = live_bytes(*graph);
  if (o.json) {
    Json json = {{"model", o.model},         {"family", a.family()}, {"paper", family.paper},
                 {"parameters", parameters}, {"macs", macs},         {"weight_bytes_f32", 4 * parameters},
                 {"activation_bytes", live}, {"depth", a.depth()},   {"layers", parts_to_json(parts)},
                 {"config", a.config()}};
    if (pictures) {
      json["size"] = {size.height, size.width};
      json["classes"] = pictures->classes();
    } else {
      json["vocab_size"] = a.language()->vocab_size();
      json["state_bytes"] = state_bytes(*graph);
    }
    if (subject.weight_bytes > 0) json["weight_bytes_in_file"] = subject.weight_bytes;
    print_json(json);
    return kOk;
  }
  fmt::print("{}: {}, {}\n\n", one_line(o.model), family.title, family.paper);
  fmt::print("  {:<14}{}\n", "parameters", grouped(parameters));
  const std::string each = pictures ? fmt::format("at {}x{}", size.height, size.width) : "a token";
  fmt::print("  {:<14}{} {} ({})\n", "MACs", si(double(macs)), each, grouped(macs));
  fmt::print("  {:<14}{} as f32", "weights", bytes_text(4 * double(parameters)));
  if (subject.weight_bytes > 0) {
    fmt::print(", {} in the file ({})", bytes_text(double(subject.weight_bytes)), subject.weight_types);
  }
  fmt::print("\n  {:<14}{} at once, for one {}\n", "activations", bytes_text(double(live)),
             pictures ? "picture" : "token");
  if (pictures) {
    fmt::print("  {:<14}{}\n", "classes",
               pictures->classes() > 0 ? grouped(pictures->classes()) : "none: a bare backbone");
  } else {
    fmt::print("  {:<14}{} of a text, whatever its length\n", "state", bytes_text(double(state_bytes(*graph))));
    fmt::print("  {:<14}{} tokens\n", "vocabulary", grouped(a.language()->vocab_size()));
  }
  print_table(parts);
  fmt::print("\n  {:<38}{:>14}{:>12}\n", "total", grouped(parameters), si(double(macs)));
  fmt::print("\n  configuration\n");
  const Json config = a.config();
  for (const auto& [key, value] : config.items()) fmt::print("    {} = {}\n", key, value.dump());
  return kOk;
}

}  // namespace

void add_info(CLI::App& app, Action& action) {
  add_command(app, action, "info", "Parameters, operations and memory of a model", declare, run);
}

}  // namespace weft::cli
