// weft export: a model as an ONNX file.
#include "onnx/export.h"

#include <filesystem>

#include "api/model_data.h"
#include "api/model_file.h"
#include "arguments.h"
#include "commands.h"
#include "io/output_file.h"

namespace weft::cli {
namespace fs = std::filesystem;
namespace {

struct Options {
  std::string model, out;
  LoadArguments load;
  std::string size;
  int batch = 1;
  std::string layers;
  bool force = false;
  bool json = false;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("MODEL", o.model, "A checkpoint file, or a preset (with random weights; see `weft models`)")
      ->required()
      ->type_name("PRESET|FILE");
  app.add_option("OUT", o.out, "File to write; must end in .onnx")->required();
  o.load.declare(app);
  app.add_option("--size", o.size, "Height and width of the pictures (default: as in `weft info`)")->type_name("N|HxW");
  app.add_option("--batch", o.batch, "Pictures per run (default 1)")->type_name("N")->check(CLI::Range(1, 65536));
  app.add_option("--layers", o.layers,
                 "Layers whose maps shall be outputs as well, separated by commas; negative ones count from the end")
      ->type_name("I,J,...");
  app.add_flag("--force", o.force, "Overwrite OUT");
  declare_json(app, o.json);
  app.footer(
      "The input \"image\" is f32 [batch,channels,H,W], normalised: preprocessing is not in the file, but what it has "
      "to be\n"
      "is in its metadata (weft.preprocess), beside the configuration and the labels. Outputs: \"logits\" "
      "[batch,classes];\n"
      "with --layers (and of a bare backbone) \"map0\", \"map1\", … [batch,C,H,W] in the order given, and \"pooled\" "
      "[batch,C].\n"
      "Size and batch are fixed in the file. It uses opset 17 and f32, and must stay below 2 GiB.\n\n"
      "Examples:\n"
      "  weft export deit_tiny.safetensors deit_tiny.onnx\n"
      "  weft export deit_tiny.safetensors deit_tiny.onnx --size 384x512 --batch 8\n"
      "  weft export deit_tiny_patch16_224 random.onnx --layers 5,-1 --json");
}

std::vector<int> layers_of(const Options& o) {
  constexpr int kMaxLayer = 100000;
  return o.layers.empty() ? std::vector<int>{} : parse_ints(o.layers, "--layers", -kMaxLayer, kMaxLayer);
}

int run(const Options& o) {
  if (!o.out.ends_with(".onnx")) fail_usage("OUT must end in .onnx, got {}", o.out);
  require_onnx_export();
  std::error_code error;
  if (!o.force && fs::exists(fs::symlink_status(o.out, error))) {
    throw IoError(fmt::format("{}: exists already; --force overwrites it", o.out));
  }
  const Model model = load_or_create(o.model, for_size(o.model, o.load.options(), given_size(o.size)));
  const PictureArchitecture& architecture = require_pictures(*model.data().architecture);
  const Size size = given_size(o.size).value_or(usual_size(architecture));
  const Shape input{o.batch, architecture.in_channels(), size.height, size.width};
  const auto graph = build_graph(architecture, input, resolve_layers(architecture, layers_of(o)));
  OnnxOptions options{.outputs = {}, .metadata = metadata_of(model.data())};
  if (o.layers.empty() && model.classes() > 0) options.outputs = {"logits"};
  const std::string bytes = export_onnx(*graph, model.data().weights, options);
  OutputFile file(o.out);
  file.write(bytes);
  file.commit();

  Json outputs = Json::object();
  for (const Graph::Output& output : graph->outputs()) {
    if (!options.outputs.empty() && output.name != options.outputs[0]) continue;
    outputs[output.name] = graph->value(output.value).type.shape.extents();
  }
  if (o.json) {
    print_json({{"out", o.out},
                {"family", model.family()},
                {"bytes", bytes.size()},
                {"inputs", {{"image", input.extents()}}},
                {"outputs", outputs}});
    return kOk;
  }
  fmt::print("{}: {}, {} parameters, {}\n", one_line(o.out), model.family(), grouped(model.parameter_count()),
             bytes_text(static_cast<double>(bytes.size())));
  fmt::print("  input   image {}\n", input);
  for (const auto& [name, shape] : outputs.items()) fmt::print("  output  {} {}\n", name, dump(shape));
  return kOk;
}

}  // namespace

void add_export(CLI::App& app, Action& action) {
  add_command(app, action, "export", "Write a model as an ONNX file, for other engines", declare, run);
}

}  // namespace weft::cli
