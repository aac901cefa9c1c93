// weft compare: where products in fewer bits lose accuracy.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "arguments.h"
#include "commands.h"

namespace weft::cli {
namespace {

struct Options {
  PictureArguments run;
};

void declare(CLI::App& app, Options& o) {
  o.run.dtype = "int8";
  o.run.declare(app);
  app.footer(
      "Runs the pictures twice, in f32 and in --dtype, and compares what is there\n"
      "after each layer (the last one's final norm included), the pooled vector that the head reads, and the logits:\n"
      "  snr    signal to noise, dB: 20 log10 of |f32| over |difference|, root mean squares over all pictures\n"
      "  lost   dB less than after the layer before\n"
      "  error  the largest difference over the largest value\n"
      "Same top-1: pictures whose likeliest class is the same in both. A picture that cannot be read is told on "
      "stderr\n"
      "and skipped; the exit code is then 1. JSON, one object: {\"model\", \"dtype\", \"pictures\", \"stages\": "
      "[{\"stage\",\n"
      "\"snr_db\", \"lost_db\", \"error\"}], \"same_top1\"}, snr_db null where nothing differs, same_top1 null for a "
      "bare\n"
      "backbone.\n\n"
      "Examples:\n"
      "  weft compare photo.jpg\n"
      "  weft compare --model vrwkv_t.safetensors --dtype bf16 'photos/*.jpg'");
}

// What two engines make of the same pictures at one place of the network.
class Difference {
 public:
  explicit Difference(std::string name) : name_(std::move(name)) {}

  void add(const Tensor& exact, const Tensor& rounded) {
    const auto want = exact.data<float>();
    const auto got = rounded.data<float>();
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double difference = static_cast<double>(got[i]) - want[i];
      signal_ += static_cast<double>(want[i]) * want[i];
      noise_ += difference * difference;
      largest_ = std::max(largest_, std::abs(static_cast<double>(want[i])));
      worst_ = std::max(worst_, std::abs(difference));
    }
  }

  const std::string& name() const { return name_; }
  /// Infinite where nothing differs.
  double decibels() const { return 10 * std::log10(signal_ / noise_); }
  double error() const { return largest_ > 0 ? worst_ / largest_ : worst_; }

 private:
  std::string name_;
  double signal_ = 0, noise_ = 0, largest_ = 0, worst_ = 0;
};

std::size_t likeliest(std::span<const float> logits) {
  return static_cast<std::size_t>(std::ranges::max_element(logits) - logits.begin());
}

class Comparison {
 public:
  Comparison(const Model& model, const SessionOptions& options)
      : exact_(model, {.threads = options.threads, .max_memory = options.max_memory}),
        rounded_(model, options),
        layers_(model.depth()) {
    std::iota(layers_.begin(), layers_.end(), 0);
    for (const int layer : layers_) stages_.emplace_back(fmt::format("layer {}", layer));
    stages_.emplace_back("pooled");
    if (has_head()) stages_.emplace_back("logits");
  }

  void add(std::span<const Image> images) {
    const Tensor input = to_input(images, exact_.model().preprocess());
    const Features want = exact_.features(input, layers_);
    const Features got = rounded_.features(input, layers_);
    for (std::size_t i = 0; i < layers_.size(); ++i) stages_[i].add(want.maps[i], got.maps[i]);
    stages_[layers_.size()].add(want.pooled, got.pooled);
    pictures_ += static_cast<std::int64_t>(images.size());
    if (!has_head()) return;
    const Tensor want_logits = exact_.logits(input);
    const Tensor got_logits = rounded_.logits(input);
    stages_.back().add(want_logits, got_logits);
    const auto classes = static_cast<std::size_t>(exact_.model().classes());
    for (std::size_t i = 0; i < images.size(); ++i) {
      const auto row = [&](const Tensor& logits) { return logits.data<float>().subspan(i * classes, classes); };
      if (likeliest(row(want_logits)) == likeliest(row(got_logits))) ++same_;
    }
  }

  bool has_head() const { return exact_.model().classes() > 0; }
  std::int64_t pictures() const { return pictures_; }
  std::int64_t same() const { return same_; }
  DType dtype() const { return rounded_.dtype(); }
  const std::vector<Difference>& stages() const { return stages_; }

 private:
  Session exact_, rounded_;
  std::vector<int> layers_;
  std::vector<Difference> stages_;
  std::int64_t pictures_ = 0, same_ = 0;
};

// Decibels less than at the stage before, where both are finite.
std::optional<double> lost(const std::vector<Difference>& stages, std::size_t i) {
  if (i == 0) return std::nullopt;
  const double less = stages[i - 1].decibels() - stages[i].decibels();
  return std::isfinite(less) ? std::optional(less) : std::nullopt;
}

void print(const std::string& model, const Comparison& comparison) {
  fmt::print("{} in {} against f32, {} pictures\n", one_line(model), dtype_text(comparison.dtype()),
             grouped(comparison.pictures()));
  fmt::print("  {:<12}{:>8}{:>8}{:>11}\n", "", "snr, dB", "lost", "error");
  for (std::size_t i = 0; i < comparison.stages().size(); ++i) {
    const Difference& stage = comparison.stages()[i];
    const std::optional<double> less = lost(comparison.stages(), i);
    fmt::print("  {:<12}{:>8.1f}{:>8}{:>11.2e}\n", stage.name(), stage.decibels(),
               less ? fmt::format("{:.1f}", std::round(10 * *less) / 10 + 0.0) : "", stage.error());
  }
  if (comparison.has_head()) {
    fmt::print("  same top-1  {} of {}\n", grouped(comparison.same()), grouped(comparison.pictures()));
  }
}

Json to_json(const std::string& model, const Comparison& comparison) {
  Json stages = Json::array();
  for (std::size_t i = 0; i < comparison.stages().size(); ++i) {
    const Difference& stage = comparison.stages()[i];
    const std::optional<double> less = lost(comparison.stages(), i);
    stages.push_back({{"stage", stage.name()},
                      {"snr_db", std::isfinite(stage.decibels()) ? Json(stage.decibels()) : Json()},
                      {"lost_db", less ? Json(*less) : Json()},
                      {"error", stage.error()}});
  }
  return {{"model", model},
          {"dtype", dtype_text(comparison.dtype())},
          {"pictures", comparison.pictures()},
          {"stages", std::move(stages)},
          {"same_top1", comparison.has_head() ? Json(comparison.same()) : Json()}};
}

int run(const Options& o) {
  const PictureRun pictures = o.run.open();
  PictureStream stream(pictures_of(o.run.images), pictures.stream);
  Comparison comparison(pictures.model, pictures.session);
  bool failed = false;
  for (Batch batch = stream.next(); !batch.empty(); batch = stream.next()) {
    use_batch(batch, [&](std::span<const Image> images) { comparison.add(images); });
    for (const Picture& picture : batch) {
      if (picture.error.empty()) continue;
      report_bad_picture(picture, /*json=*/false);
      failed = true;
    }
  }
  if (comparison.pictures() == 0) return kFailure;
  if (o.run.json) {
    print_json(to_json(pictures.name(), comparison));
  } else {
    print(pictures.name(), comparison);
  }
  return failed ? kFailure : kOk;
}

}  // namespace

void add_compare(CLI::App& app, Action& action) {
  add_command(app, action, "compare", "Where products in fewer bits lose accuracy, layer by layer", declare, run);
}

}  // namespace weft::cli
