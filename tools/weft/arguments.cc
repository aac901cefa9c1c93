#include "arguments.h"

#include "api/model_data.h"

namespace weft::cli {

void LoadArguments::declare(CLI::App& app) {
  app.add_option("--section", section,
                 "Which tensors of a PyTorch checkpoint: model, state_dict, ema, … (default: chosen; `weft inspect` "
                 "tells what there is)")
      ->type_name("NAME");
  app.add_option("--set", set,
                 "A model option that the file does not tell, or that shall be other than it says; repeatable "
                 "(example: --set wkv=released_kernel)")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

LoadOptions LoadArguments::options() const {
  LoadOptions options{.section = section, .config = {}};
  for (const std::string& pair : set) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) fail_usage("--set must be KEY=VALUE, got {}", pair);
    options.config.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
  return options;
}

void declare_json(CLI::App& app, bool& json) {
  app.add_flag("--json", json, "Print JSON: one object per result, each on a line of its own");
}

void declare_threads(CLI::App& app, int& threads) {
  app.add_option("--threads", threads, "Threads that work; 0: one per core (default)")
      ->type_name("N")
      ->check(CLI::Range(0, 1024));
}

void declare_dtype(CLI::App& app, std::string& dtype) {
  app.add_option("--dtype", dtype,
                 fmt::format("What matrix products multiply: f32, bf16, int8, or auto: bf16 where the CPU has it in "
                             "hardware, else f32 (default {})",
                             dtype))
      ->type_name("TYPE");
}

void declare_max_memory(CLI::App& app, std::string& size) {
  app.add_option("--max-memory", size,
                 "Refuse, before it starts, what would need more memory than this: 600M, 1.5G, … (default: no limit)")
      ->type_name("SIZE");
}

std::int64_t parse_max_memory(std::string_view size) { return size.empty() ? 0 : parse_bytes(size, "--max-memory"); }

void RunArguments::declare(CLI::App& app) {
  app.add_option("--model", model,
                 "Checkpoint: safetensors, or PyTorch in the official layout (default: $WEFT_MODEL, else the small "
                 "CIFAR-10 model that comes with weft)")
      ->type_name("FILE");
  load.declare(app);
  declare_threads(app, threads);
  declare_dtype(app, dtype);
  declare_max_memory(app, max_memory);
  app.add_option("--batch", batch, fmt::format("Pictures of equal size to run at once (default {})", batch))
      ->type_name("N")
      ->check(CLI::Range(1, 4096));
  declare_json(app, json);
}

PictureRun RunArguments::open() const {
  const SessionOptions session{
      .threads = threads, .dtype = parse_dtype(dtype, "--dtype"), .max_memory = parse_max_memory(max_memory)};
  const LoadOptions options = load.options();
  const std::filesystem::path path = model_path(model);
  const Model loaded = load_model(path, options);
  (void)require_pictures(*loaded.data().architecture);
  const Preprocess preprocess = any_size ? loaded.preprocess().any_size() : loaded.preprocess();
  return {.path = path,
          .model = loaded.with_preprocess(preprocess.any_size()),
          .session = session,
          .stream = {.preprocess = preprocess, .threads = threads, .max_batch = batch}};
}

void PictureArguments::declare(CLI::App& app) {
  app.add_option("IMAGE", images, "Pictures: paths, patterns (quoted or not), or - for the standard input")->required();
  RunArguments::declare(app);
  app.add_flag("--any-size", any_size, "Take each picture at its own size: no resizing, no crop");
}

}  // namespace weft::cli
