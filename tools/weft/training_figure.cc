#include "training_figure.h"

#include <fstream>
#include <string>

#include "core/json.h"
#include "figure.h"
#include "io/output_file.h"
#include "train/state.h"

namespace weft::cli {

void draw_training(const std::filesystem::path& run) {
  std::vector<Point> loss, val_loss, top1, bits, perplexity, rate;
  std::ifstream log(run / run_files::kLog);
  for (std::string line; std::getline(log, line);) {
    const Json entry = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!entry.is_object()) continue;
    const auto add = [&](const char* key, std::vector<Point>& points, double factor = 1) {
      const auto value = entry.find(key);
      if (value == entry.end() || !value->is_number()) return;
      points.push_back({entry.value("step", 0.0), factor * value->get<double>()});
    };
    add("loss", loss);
    add("val_loss", val_loss);
    add("val_top1", top1, 100);
    add("val_bits_per_byte", bits);
    add("val_perplexity", perplexity);
    add("lr", rate);
  }
  const bool text = !perplexity.empty();
  const Figure::Panel measure = !text          ? Figure::Panel{"top-1, %", {{}, top1, {}}}
                                : bits.empty() ? Figure::Panel{"perplexity", {{}, perplexity, {}}}
                                               : Figure::Panel{"bits per byte", {{}, bits, {}}};
  const Figure figure{.title = "Training",
                      .x_axis = "steps",
                      .scale = Scale::kLinear,
                      .lines = {"training", "validation", "learning rate"},
                      .panels = {{"loss", {loss, val_loss, {}}}, measure, {"learning rate", {{}, {}, rate}}}};
  OutputFile file(run / run_files::kCurves);
  file.write(to_svg(figure));
  file.commit();
}

}  // namespace weft::cli
