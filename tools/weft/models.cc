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
      "JSON, per preset: {\"name\", \"family\", \"summary\", \"parameters\", \"macs\", \"size\": [H,W] of those that "
      "read pictures}.\n\n"
      "Examples:\n"
      "  weft models\n"
      "  weft models --json | jq -r .name");
}

int run(const Options& o) {
  for (const Family& family : families()) {
    if (!o.json) fmt::print("{} ({}): {}\n", family.name, family.title, family.paper);
    for (const Preset& preset : family.presets) {
      const auto architecture = family.configure(preset.config);
      const PictureArchitecture* const pictures = architecture->pictures();
      const Size size = pictures ? usual_size(*pictures) : Size{};
      const auto graph = pictures ? build_graph(*pictures, {1, pictures->in_channels(), size.height, size.width}, {})
                                  : native_graph(*architecture);
      if (o.json) {
        Json json = {{"name", preset.name},
                     {"family", family.name},
                     {"summary", preset.summary},
                     {"parameters", graph->parameter_count()},
                     {"macs", graph->macs()}};
        if (pictures) json["size"] = {size.height, size.width};
        print_json(json);
      } else {
        fmt::print("  {:<34}{:>14} parameters{:>12}MACs {}\n", preset.name, grouped(graph->parameter_count()),
                   si(double(graph->macs())), pictures ? fmt::format("at {}x{}", size.height, size.width) : "a token");
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
