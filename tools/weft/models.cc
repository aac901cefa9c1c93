// weft models: the architectures that weft knows.
#include "api/model_data.h"
#include "arguments.h"
#include "commands.h"

namespace weft::cli {
namespace {

struct Options {
  bool json = false;
};

void declare(CLI::App& app, Options& o) {
  declare_json(app, o.json);
  app.footer(
      "JSON, per preset: {\"name\", \"family\", \"summary\", \"parameters\", \"size\": [H,W], \"macs\"}.\n\n"
      "Examples:\n"
      "  weft models\n"
      "  weft models --json | jq -r .name");
}

int run(const Options& o) {
  for (const Family& family : families()) {
    if (!o.json) fmt::print("{} ({}): {}\n", family.name, family.title, family.paper);
    for (const Preset& preset : family.presets) {
      const auto architecture = family.configure(preset.config);
      const auto [height, width] = usual_size(*architecture);
      const auto graph = build_graph(*architecture, {1, architecture->in_channels(), height, width}, {});
      if (o.json) {
        print_json({{"name", preset.name},
                    {"family", family.name},
                    {"summary", preset.summary},
                    {"parameters", graph->parameter_count()},
                    {"size", {height, width}},
                    {"macs", graph->macs()}});
      } else {
        fmt::print("  {:<34}{:>12} parameters{:>12}MACs at {}x{}\n", preset.name, grouped(graph->parameter_count()),
                   si(double(graph->macs())), height, width);
      }
    }
  }
  return kOk;
}

}  // namespace

void add_models(CLI::App& app, Action& action) {
  add_command(app, action, "models", "The model families and presets there are", declare, run);
}

}  // namespace weft::cli
