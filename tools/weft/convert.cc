// weft convert: a checkpoint as one safetensors file that says everything about the model itself.
#include <fstream>
#include <optional>

#include "api/model_data.h"
#include "arguments.h"
#include "commands.h"

namespace weft::cli {
namespace fs = std::filesystem;
namespace {

struct Options {
  std::string in, out;
  LoadArguments load;
  std::string labels;
  std::string mean, std;
  std::optional<std::int64_t> resize, crop;
  std::string filter;
  std::string dtype;
  bool force = false;
  bool json = false;
};

void declare(CLI::App& app, Options& o) {
  constexpr std::int64_t kMaxSide = 65535;
  app.add_option("IN", o.in, "Checkpoint: safetensors, or PyTorch in the official layout")->required();
  app.add_option("OUT", o.out, "File to write; must end in .safetensors")->required();
  o.load.declare(app);
  app.add_option("--labels", o.labels, "Text file with the names of the classes, one per line")->type_name("FILE");
  app.add_option("--mean", o.mean, "Mean of the channels red, green, blue, with pixels 0 … 255")->type_name("R,G,B");
  app.add_option("--std", o.std, "Standard deviation of the channels, with pixels 0 … 255")->type_name("R,G,B");
  app.add_option("--resize", o.resize, "Shorter side of a picture after resizing; 0: pictures are not resized")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{0}, kMaxSide));
  app.add_option("--crop", o.crop, "Side of the centre crop; 0: pictures are not cropped")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{0}, kMaxSide));
  app.add_option("--filter", o.filter, "How pictures are resized: nearest, box, bilinear, bicubic or lanczos")
      ->type_name("NAME");
  app.add_option("--dtype", o.dtype, "Element type of the weights in OUT: f32, f16 or bf16 (default: as in IN)")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  app.add_flag("--force", o.force, "Overwrite OUT");
  declare_json(app, o.json);
  app.footer(
      "OUT holds weights, configuration, labels, preprocessing and where they come from: every weft command takes it\n"
      "as it is. What is not given is kept.\n\n"
      "Examples:\n"
      "  weft convert vrwkv_t_in1k_224.pth vrwkv_t.safetensors --labels imagenet_classes.txt\n"
      "  weft convert net.pth net.safetensors --set wkv=released_kernel --dtype f16\n"
      "  weft convert net.pth net.safetensors --mean 127.5,127.5,127.5 --std 127.5,127.5,127.5 --resize 256 --crop "
      "224");
}

std::vector<std::string> read_labels(const std::string& path) {
  constexpr std::size_t kMaxBytes = std::size_t{64} << 20;
  std::error_code error;
  if (fs::is_directory(path, error)) throw IoError(fmt::format("{}: is a folder, not a list of labels", path));
  std::ifstream file(path);
  if (!file) throw IoError(fmt::format("{}: cannot read the list of labels", path));
  std::vector<std::string> labels;
  std::size_t bytes = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.ends_with('\r')) line.pop_back();
    bytes += line.size();
    if (bytes > kMaxBytes) throw IoError(fmt::format("{}: is too large for a list of labels", path));
    labels.push_back(std::move(line));
  }
  while (!labels.empty() && labels.back().empty()) labels.pop_back();
  return labels;
}

Preprocess wanted_preprocess(const Options& o, Preprocess preprocess) {
  if (!o.mean.empty()) preprocess.mean = parse_triple(o.mean, "--mean");
  if (!o.std.empty()) preprocess.std = parse_triple(o.std, "--std");
  if (o.resize) preprocess.resize = *o.resize;
  if (o.crop) preprocess.crop = *o.crop;
  if (!o.filter.empty()) preprocess.filter = parse_filter(o.filter);
  const bool given = !o.mean.empty() && !o.std.empty();
  const bool fractions = std::ranges::all_of(preprocess.mean, [](float x) { return x > 0 && x <= 1; }) &&
                         std::ranges::all_of(preprocess.std, [](float x) { return x > 0 && x < 1; });
  if (given && fractions) {
    fmt::print(stderr, "note: --mean and --std look as if pixels were 0 … 1; here they are 0 … 255\n");
  }
  return preprocess;
}

Model with_dtype(const Model& model, const std::string& name) {
  if (name.empty()) return model;
  const DType dtype = name == "f32" ? DType::kF32 : name == "f16" ? DType::kF16 : DType::kBF16;
  ModelData data = model.data();
  for (auto& [tensor_name, tensor] : data.weights) tensor = tensor.to(dtype);
  check_weights(data, fmt::format("as {}", name));  // f16 ends at 65504
  return Model(std::make_shared<const ModelData>(std::move(data)));
}

// Options that a model of text has no use for.
void refuse_picture_options(const Options& o, const Model& model) {
  const std::pair<const char*, bool> options[] = {{"--labels", !o.labels.empty()}, {"--mean", !o.mean.empty()},
                                                  {"--std", !o.std.empty()},       {"--resize", o.resize.has_value()},
                                                  {"--crop", o.crop.has_value()},  {"--filter", !o.filter.empty()}};
  for (const auto& [name, given] : options) {
    if (given) fail_usage("{} is for models that read pictures; {} reads text", name, model.family());
  }
}

int run(const Options& o) {
  if (!o.out.ends_with(".safetensors")) fail_usage("OUT must end in .safetensors, got {}", o.out);
  std::error_code error;
  if (!o.force && fs::exists(fs::symlink_status(o.out, error))) {
    throw IoError(fmt::format("{}: exists already; --force overwrites it", o.out));
  }
  Model model = load_model(o.in, o.load.options());
  const bool pictures = model.data().architecture->pictures() != nullptr;
  if (!pictures) refuse_picture_options(o, model);
  model = model.with_preprocess(wanted_preprocess(o, model.preprocess()));
  if (!o.labels.empty()) model = model.with_labels(read_labels(o.labels));
  model = with_dtype(model, o.dtype);
  model.save(o.out);
  const auto bytes = static_cast<std::int64_t>(fs::file_size(o.out));
  const Preprocess& p = model.preprocess();
  if (o.json) {
    Json json = {{"out", o.out}, {"family", model.family()}, {"parameters", model.parameter_count()}, {"bytes", bytes}};
    if (pictures) {
      json["classes"] = model.classes();
      json["labels"] = model.labels().size();
      json["preprocess"] = {
          {"resize", p.resize}, {"crop", p.crop}, {"filter", name_of(p.filter)}, {"mean", p.mean}, {"std", p.std}};
    } else {
      json["vocab_size"] = model.vocab_size();
    }
    json["config"] = model.data().architecture->config();
    print_json(json);
    return kOk;
  }
  fmt::print("{}: {}, {} parameters, {}\n", one_line(o.out), model.family(), grouped(model.parameter_count()),
             bytes_text(static_cast<double>(bytes)));
  if (pictures) {
    fmt::print("  labels      {}\n", model.labels().empty() ? "none" : fmt::format("{} names", model.labels().size()));
    fmt::print("  preprocess  resize {}, crop {}, {}, mean {}, std {}\n", p.resize, p.crop, name_of(p.filter),
               fmt::join(p.mean, ","), fmt::join(p.std, ","));
  } else {
    fmt::print("  vocabulary  {} tokens\n", grouped(model.vocab_size()));
  }
  for (const Finding& finding : model.data().findings) {
    if (finding.assumed) fmt::print("  assumed     {} = {}: {}\n", finding.option, finding.value, finding.reason);
  }
  return kOk;
}

}  // namespace

void add_convert(CLI::App& app, Action& action) {
  add_command(app, action, "convert", "Write a checkpoint as one self-contained safetensors file", declare, run);
}

}  // namespace weft::cli
