// weft classify: what is in a picture.
#include <cstdio>

#include "arguments.h"
#include "commands.h"

namespace weft::cli {
namespace {

struct Options {
  PictureArguments run;
  int top = 5;
};

void declare(CLI::App& app, Options& o) {
  o.run.declare(app);
  app.add_option("--top", o.top, "Classes to print per picture (default 5)")
      ->type_name("K")
      ->check(CLI::PositiveNumber);
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
  const PictureRun pictures = o.run.open();
  PictureStream stream(pictures_of(o.run.images), pictures.stream);
  const Session session(pictures.model, pictures.session);
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
