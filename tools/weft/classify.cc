// weft classify: what is in a picture.
#include <cstdio>

#include "commands.h"
#include "picture_stream.h"

namespace weft::cli {
namespace {

struct Options {
  RunArguments run;
  int top = 5;
  int batch = 8;
  bool any_size = false;
  std::vector<std::string> images;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("IMAGE", o.images, "Pictures: paths, patterns (quoted or not), or - for the standard input")
      ->required();
  o.run.declare(app);
  app.add_option("--top", o.top, "Classes to print per picture (default 5)")
      ->type_name("K")
      ->check(CLI::PositiveNumber);
  app.add_flag("--any-size", o.any_size, "Take each picture at its own size: no resizing, no crop");
  app.add_option("--batch", o.batch, "Pictures of equal size to run at once (default 8)")
      ->type_name("N")
      ->check(CLI::Range(1, 4096));
  app.footer(
      "Prints the likeliest classes of each picture, in the order given. A picture that cannot be read is told on\n"
      "stderr and skipped; the exit code is then 1. JSON: {\"file\", \"dtype\", \"predictions\": [{\"label\",\n"
      "\"index\", \"probability\"}]}, or {\"file\", \"error\"}.\n\n"
      "Examples:\n"
      "  weft classify photo.jpg\n"
      "  weft classify --model vrwkv_t.safetensors --top 1 --json 'photos/*.jpg'\n"
      "  curl -s https://example.org/cat.png | weft classify -");
}

void print_predictions(const std::string& file, DType dtype, const std::vector<Prediction>& predictions, bool json) {
  if (!json) {
    fmt::print("{}{}\n", one_line(file), dtype_note(dtype));
    for (const Prediction& p : predictions) fmt::print("  {:5.1f} %  {}\n", 100 * p.probability, one_line(p.label));
    return;
  }
  Json list = Json::array();
  for (const Prediction& p : predictions) {
    list.push_back({{"label", p.label}, {"index", p.index}, {"probability", p.probability}});
  }
  print_json({{"file", file}, {"dtype", dtype_text(dtype)}, {"predictions", std::move(list)}});
}

int run(const Options& o) {
  const SessionOptions session_options = o.run.session_options();
  const Model model = load_model(model_path(o.run.model), o.run.load.options());
  const Preprocess preprocess = o.any_size ? model.preprocess().any_size() : model.preprocess();
  PictureStream stream(pictures_of(o.images),
                       {.preprocess = preprocess, .threads = o.run.threads, .max_batch = o.batch});
  const Session session(model.with_preprocess(preprocess.any_size()), session_options);
  bool failed = false;
  for (Batch batch = stream.next(); !batch.empty(); batch = stream.next()) {
    std::vector<std::vector<Prediction>> predictions;
    use_batch(batch, [&](std::span<const Image> images) { predictions = session.classify(images, o.top); });
    auto prediction = predictions.begin();
    for (const Picture& picture : batch) {
      if (picture.error.empty()) {
        print_predictions(picture.name, session.dtype(), *prediction++, o.run.json);
      } else {
        report_bad_picture(picture, o.run.json);
        failed = true;
      }
    }
    std::fflush(stdout);
  }
  return failed ? kFailure : kOk;
}

}  // namespace

void add_classify(CLI::App& app, Action& action) {
  add_command(app, action, "classify", "Name what is in pictures", declare, run);
}

}  // namespace weft::cli
