// weft eval: how often a model is right.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "arguments.h"
#include "commands.h"
#include "labelled_data.h"
#include "progress.h"

namespace weft::cli {
namespace {

struct Options {
  RunArguments run;
  std::string data;
  std::int64_t limit = 0;
};

void declare(CLI::App& app, Options& o) {
  app.add_option(
         "DATA", o.data,
         "Folder with a sub-folder of pictures per class, CIFAR-10 binary file, IDX file of pictures (MNIST family, "
         ".gz too), folder of such files or with train and val folders, or - for a CIFAR-10 file on the standard input")
      ->required();
  o.run.batch = 16;
  o.run.declare(app);
  app.add_option("--limit", o.limit,
                 "Take so many pictures, spread evenly over the data set, of a pipe the first; 0: all (default)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  app.footer(
      "Classes are matched with the model's labels by name where all bear such names, otherwise by their numbers or,\n"
      "folders, in sorted order (ImageNet's n01440764, …). Pictures that cannot be read are told on stderr, left out,\n"
      "and make the exit code 1.\n"
      "Times include decoding. JSON: {\"model\", \"data\", \"dtype\", \"pictures\", \"failed\", \"top1\", \"top5\", "
      "\"seconds\",\n"
      "\"pictures_per_second\", \"milliseconds_per_picture\"}, top1 and top5 being fractions of the pictures read.\n\n"
      "Examples:\n"
      "  xz -dc cifar10_test.bin.xz | weft eval -\n"
      "  weft eval --model vrwkv_t.safetensors imagenet/val --limit 1000\n"
      "  weft eval --model digits.safetensors t10k-images-idx3-ubyte.gz");
}

struct Score {
  std::int64_t pictures = 0, failed = 0, top1 = 0, top5 = 0;

  double fraction(std::int64_t hits) const {
    return pictures > 0 ? static_cast<double>(hits) / static_cast<double>(pictures) : 0;
  }
  void count(const std::vector<Prediction>& predictions, int label) {
    ++pictures;
    if (predictions.front().index == label) ++top1;
    if (std::ranges::find(predictions, label, &Prediction::index) != predictions.end()) ++top5;
  }
};

void run_batch(const Session& session, Batch& batch, Score& score, Progress& progress) {
  std::vector<std::vector<Prediction>> predictions;
  use_batch(batch, [&](std::span<const Image> images) { predictions = session.classify(images, 5); });
  auto prediction = predictions.begin();
  for (const Picture& picture : batch) {
    if (picture.error.empty()) {
      score.count(*prediction++, picture.label);
    } else {
      ++score.failed;
      progress.clear();
      print_error(picture.error);
    }
  }
}

int run(const Options& o) {
  const PictureRun pictures = o.run.open();
  const Model& model = pictures.model;
  if (model.classes() == 0)
    throw UnsupportedError(fmt::format("{}: a bare backbone has no classes", pictures.path.string()));
  LabelledData data = open_labelled_data(o.data, model.labels(), model.classes(), o.limit);
  PictureStream stream(std::move(data.next), pictures.stream);
  const Session session(model, pictures.session);
  Score score;
  Progress progress(data.count);
  const auto start = std::chrono::steady_clock::now();
  for (Batch batch = stream.next(); !batch.empty(); batch = stream.next()) {
    run_batch(session, batch, score, progress);
    progress.update(score.pictures + score.failed, fmt::format("top-1 {:.2f} %", 100 * score.fraction(score.top1)));
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  progress.clear();
  const double rate = seconds > 0 ? static_cast<double>(score.pictures) / seconds : 0;
  const double milliseconds = rate > 0 ? 1000 / rate : 0;
  if (o.run.json) {
    print_json({{"model", pictures.name()},
                {"data", o.data},
                {"dtype", dtype_text(session.dtype())},
                {"pictures", score.pictures},
                {"failed", score.failed},
                {"top1", score.fraction(score.top1)},
                {"top5", score.fraction(score.top5)},
                {"seconds", seconds},
                {"pictures_per_second", rate},
                {"milliseconds_per_picture", milliseconds}});
  } else {
    fmt::print("{} on {}\n", one_line(pictures.name()), one_line(o.data));
    fmt::print("  {:<10}{}{}\n", "pictures", grouped(score.pictures),
               score.failed > 0 ? fmt::format(" (and {} that cannot be read)", grouped(score.failed)) : "");
    fmt::print("  {:<10}{:.2f} %\n  {:<10}{:.2f} %\n", "top-1", 100 * score.fraction(score.top1), "top-5",
               100 * score.fraction(score.top5));
    fmt::print("  {:<10}{:.2f} s, {:.3f} ms per picture, {:.1f} pictures/s, {} threads, {}\n", "time", seconds,
               milliseconds, rate, session.threads(), dtype_text(session.dtype()));
  }
  return score.failed > 0 || score.pictures == 0 ? kFailure : kOk;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  add_command(app, action, "eval", "Accuracy on pictures whose class is known", declare, run);
}

}  // namespace weft::cli
