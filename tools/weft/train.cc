// weft train: weights from pictures whose classes are known, or from text.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "arguments.h"
#include "commands.h"
#include "core/options.h"
#include "interrupt.h"
#include "io/json.h"
#include "models/architecture.h"
#include "progress.h"
#include "train/launch.h"
#include "train/run.h"
#include "train/state.h"
#include "training_figure.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string recipe = "small";
  std::string config;
  std::vector<std::string> set;
  // Short for --set; by their keys.
  std::string data, val, tokenizer, model, from, dtype;
  std::string epochs, batch, lr, seed;
  std::string out, resume;
  std::string device = "cpu";
  int threads = 0;
  int workers = 1;
  std::int64_t stop_after = 0;
  int timeout = 30;
  bool print_config = false;
  bool json = false;

  // What stands on the command line, by key.
  std::vector<std::pair<const char*, const std::string*>> short_forms() const {
    return {{"data", &data},   {"val", &val},       {"tokenizer", &tokenizer}, {"model", &model}, {"from", &from},
            {"dtype", &dtype}, {"epochs", &epochs}, {"batch", &batch},         {"lr", &lr},       {"seed", &seed}};
  }
};

void declare(CLI::App& app, Options& o) {
  std::string known;
  for (const Recipe& recipe : recipes()) known += fmt::format("; {}: {}", recipe.name, recipe.summary);
  app.add_option("--recipe", o.recipe, "What everything that is not given is set to" + known)->capture_default_str();
  app.add_option("--data", o.data,
                 "Pictures to train with: a folder with a sub-folder per class, CIFAR-10 binary files, IDX files "
                 "(MNIST), .gz or not. Of a language model a file: text, or tokens (.npy; .bin: 16-bit numbers)")
      ->type_name("PATH");
  app.add_option("--val", o.val, "Pictures or text to judge by, after each epoch")->type_name("PATH");
  app.add_option("--tokenizer", o.tokenizer,
                 "Of a language model: tokenizer.json, a vocabulary of RWKV World, or bytes: each byte is a token")
      ->type_name("FILE");
  app.add_option("--out", o.out, "Folder for the models, the state and the log of a new run")->type_name("DIR");
  app.add_option("--resume", o.resume, "Go on with the run in this folder, as if it had never stopped")
      ->type_name("DIR");
  app.add_option("--model", o.model, "Preset to train with fresh weights (`weft models`)")->type_name("PRESET");
  app.add_option("--from", o.from, "Checkpoint to go on from; other classes get a new head")->type_name("FILE");
  app.add_option("--config", o.config, "JSON file with any of the keys, over those of the recipe")->type_name("FILE");
  app.add_option("--set", o.set, "One key, over those of --config: --set clip=1 --set augment.mixup=0.8")
      ->type_name("KEY=VALUE");
  app.add_option("--epochs", o.epochs, "Passes over the pictures or the text")->type_name("N");
  app.add_option("--batch", o.batch, "Pictures, or windows of text, per pass and process")->type_name("N");
  app.add_option("--lr", o.lr, "Highest learning rate")->type_name("X");
  app.add_option("--dtype", o.dtype, "What products multiply: f32 or bf16; weights and sums stay f32")->type_name("T");
  app.add_option("--seed", o.seed, "Of weights, order, augmentation and dropped branches")->type_name("N");
  app.add_option("--device", o.device, "cpu or cuda")->check(CLI::IsMember({"cpu", "cuda"}))->capture_default_str();
  declare_threads(app, o.threads);
  app.add_option("--workers", o.workers, "Threads that prepare pictures; the result does not depend on them")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  app.add_option("--stop-after", o.stop_after, "Save the state and leave once so many steps are done in all")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
  app.add_option("--timeout", o.timeout,
                 "With several processes: seconds that the gradients of another one may take before it counts as lost")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str()
      ->type_name("S");
  app.add_flag("--print-config", o.print_config, "Print the complete configuration as JSON and leave");
  declare_json(app, o.json);
  app.footer(
      "docs/training.md explains every key, and training in several processes (torchrun, mpirun, srun). Ctrl-C and "
      "SIGTERM save the state before leaving (exit code 1).\n"
      "JSON: {\"finished\", \"step\", \"steps\", \"best_top1\" or, of text, \"best_loss\", \"out\"}.\n\n"
      "Examples:\n"
      "  weft train --data cifar10_train.bin --val cifar10_test.bin --out run\n"
      "  weft train --resume run\n"
      "  weft train --recipe finetune --from vrwkv_t.pth --data flowers/train --val flowers/val --out flowers-run\n"
      "  weft train --recipe imagenet --data imagenet/train --val imagenet/val --device cuda --dtype bf16 --out in1k\n"
      "  weft train --recipe text --data book.txt --val end.txt --tokenizer bytes --out book\n"
      "  weft train --recipe text --from rwkv4_169m.pth --tokenizer tokenizer.json --data notes.txt --out notes");
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  require<IoError>(file.is_open(), path, "cannot read the file");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// "augment.mixup" as {"augment": {"mixup": …}}.
void put(Json& json, std::string_view key, std::string_view text) {
  Json* place = &json;
  for (std::size_t dot = key.find('.'); dot != std::string_view::npos; dot = key.find('.')) {
    place = &(*place)[std::string(key.substr(0, dot))];
    if (!place->is_null() && !place->is_object()) fail_usage("--set {}: is no group of keys", printable(key));
    key.remove_prefix(dot + 1);
  }
  if (!is_utf8(text)) fail_usage("--set {}: the value is no UTF-8", printable(key));
  (*place)[std::string(key)] = Json::accept(text) ? parse_json(text, key) : Json(text);
}

// Whether a recipe's options may be those of a model: of no file, and of a preset of the same family only.
bool suits(const std::string& recipes, const std::string& model) {
  if (recipes.empty() || model.empty()) return recipes == model;
  return find_preset(recipes).first == find_preset(model).first;
}

// What the command line says, over `given`.
Json with_command_line(const Options& o, Json given) {
  for (const auto& [key, value] : o.short_forms()) {
    if (!value->empty()) put(given, key, *value);
  }
  // A path or a name is text even if it reads as a number.
  for (const char* const key : {"data", "val", "tokenizer", "model", "from"}) {
    if (given.contains(key) && !given[key].is_string()) given[key] = given[key].dump();
  }
  for (const std::string& set : o.set) {
    const std::size_t equals = set.find('=');
    if (equals == std::string::npos || equals == 0) fail_usage("--set wants KEY=VALUE, got {}", printable(set));
    put(given, std::string_view(set).substr(0, equals), std::string_view(set).substr(equals + 1));
  }
  if (given.contains("from") && !given.contains("model")) given["model"] = "";
  return given;
}

TrainConfig config_of(const Options& o) {
  const TrainConfig& recipe = find_recipe(o.recipe).config;
  TrainConfig config = recipe;
  if (!o.config.empty()) config_from_json(parse_json(read_text(o.config), o.config), config, o.config);
  const Json model = with_command_line(o, Json::object()).value("model", Json(config.model));
  const bool others = model.is_string() && !suits(recipe.model, model.get<std::string>());
  if (others && config.options == recipe.options) config.options = Json::object();
  // Of all options one may be set alone.
  config_from_json(with_command_line(o, {{"options", config.options}}), config, "command line");
  return config;
}

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole >= 3600) return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
  return whole >= 60 ? fmt::format("{} min {:02} s", whole / 60, whole % 60) : fmt::format("{} s", whole);
}

std::string measure_text(std::string_view name, double value) {
  if (name == "top1" || name == "top5") return fmt::format("top-{} {:.2f} %", name.back(), 100 * value);
  if (name == "bits_per_byte") return fmt::format("{:.4f} bits per byte", value);
  return fmt::format("{} {:.4f}", name, value);
}

class Console final : public RunListener {
 public:
  void started(std::string_view description) override { print("training with {}", description); }
  void stepped(const StepReport& r) override {
    if (!progress_) progress_.emplace(r.steps);
    const auto samples = static_cast<double>((r.steps - r.step) * r.samples);
    const double left = r.samples_per_second > 0 ? samples / r.samples_per_second : 0;
    progress_->update(r.step, fmt::format("epoch {}  loss {:.4f}  lr {:.2e}  {:.0f} {}/s  {} left", r.epoch + 1, r.loss,
                                          r.learning_rate, r.samples_per_second, r.unit, duration_text(left)));
  }
  void evaluated(const EvalReport& r) override {
    std::string measures;
    for (const auto& [name, value] : r.measures) measures += measure_text(name, value) + ", ";
    print("epoch {}: {}loss {:.4f} on {} {}{}", r.epoch, measures, r.loss, grouped(r.samples), r.unit,
          r.best ? ", the best so far" : "");
  }
  void warned(std::string_view text) override {
    if (progress_) progress_->clear();
    print_error(text);
  }
  bool stop_requested() override { return caught_signal() != 0; }

 private:
  template <class... Args>
  void print(fmt::format_string<Args...> text, Args&&... args) {
    if (progress_) progress_->clear();
    fmt::print(stderr, "{}\n", one_line(fmt::format(text, std::forward<Args>(args)...)));
  }

  std::optional<Progress> progress_;
};

Meeting meeting_of(const Launch& launch, const Options& o) {
  Meeting meeting = launch.meeting;
  meeting.timeout = std::chrono::seconds(o.timeout);
  meeting.cuda = o.device == "cuda";
  return meeting;
}

int run(const Options& o) {
  if (o.print_config) {
    print_json(config_to_json(o.resume.empty() ? config_of(o) : read_state(o.resume).config));
    return kOk;
  }
  if (o.out.empty() == o.resume.empty()) fail_usage("give a folder: --out for a new run or --resume for an old one");
  const Launch launch = read_launch([](const char* name) -> const char* { return std::getenv(name); });
  const bool alone = launch.meeting.world == 1;
  RunOptions options{.out = o.resume.empty() ? o.out : o.resume,
                     .threads = alone || o.threads > 0 ? o.threads : launch.threads(),
                     .workers = o.workers,
                     .cuda = o.device == "cuda",
                     .cuda_device = launch.local_rank,
                     .stop_after = o.stop_after};
  ResumeChanges changes{.data = o.data, .val = o.val};
  if (!o.batch.empty()) changes.batch = config_of(o).batch;
  TrainConfig config;
  if (o.resume.empty()) {
    config = config_of(o);
  } else {
    const auto given = o.short_forms();
    const bool other =
        !o.config.empty() || !o.set.empty() || std::any_of(given.begin(), given.end(), [](const auto& form) {
          const std::string_view key = form.first;
          return key != "data" && key != "val" && key != "batch" && !form.second->empty();
        });
    if (other) {
      fail_usage(
          "--resume goes on with the run's own configuration; only --data, --val and, for another number of processes, "
          "--batch may be given anew");
    }
  }
  leave_on_signals();
  if (!alone) options.processes = load_torch_processes(meeting_of(launch, o));
  Console console;
  const RunResult result = o.resume.empty() ? train(config, options, load_torch_trainer, console)
                                            : resume(changes, options, load_torch_trainer, console);
  const int code = result.finished || o.stop_after > 0 ? kOk : kFailure;
  if (launch.meeting.rank != 0) return code;
  draw_training(options.out);
  if (o.json) {
    print_json({{"finished", result.finished},
                {"step", result.step},
                {"steps", result.steps},
                {fmt::format("best_{}", result.criterion), result.best ? Json(*result.best) : Json(nullptr)},
                {"out", options.out.string()}});
  } else if (result.finished) {
    fmt::print("{} steps done{}; the model is {}\n", grouped(result.step),
               result.best ? fmt::format(", best {}", measure_text(result.criterion, *result.best)) : "",
               one_line((options.out / (result.best ? run_files::kBest : run_files::kLast)).string()));
  } else {
    fmt::print("stopped after {} of {} steps; go on with `weft train --resume {}`\n", grouped(result.step),
               grouped(result.steps), one_line(options.out.string()));
  }
  return code;
}

}  // namespace

void add_train(CLI::App& app, Action& action) {
  add_command(app, action, "train", "Train or fine-tune a model on pictures or text (needs libtorch)", declare, run);
}

}  // namespace weft::cli
