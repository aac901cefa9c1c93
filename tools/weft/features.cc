// weft features: what a model sees in pictures, as arrays.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>

#include "api/model_data.h"
#include "arguments.h"
#include "commands.h"
#include "io/npy.h"
#include "io/safetensors.h"

namespace weft::cli {
namespace {

struct Options {
  PictureArguments run;
  std::string layers;
  std::string out;
  std::optional<int> map;
};

void declare(CLI::App& app, Options& o) {
  o.run.declare(app);
  app.add_option("--layers", o.layers,
                 "Layers whose maps are wanted, separated by commas; negative ones count from the end (default: those "
                 "that the model's configuration names, usually the last)")
      ->type_name("I,J,...");
  app.add_option("--out", o.out, "Write the arrays to this file instead of printing statistics")
      ->type_name("FILE.npy|FILE.safetensors");
  app.add_option("--map", o.map, "With --out FILE.npy: write the map of this layer instead of the pooled vectors")
      ->type_name("I");
  app.footer(
      "A layer's map is [C,H,W] per picture, H and W being the picture's sides over the patch size; the pooled vector\n"
      "[C] is the mean of the map that the head reads. All arrays are f32.\n\n"
      "Without --out: shape, mean, standard deviation, least and greatest value of each. JSON, per picture: "
      "{\"file\",\n"
      "\"dtype\", \"layers\": [{\"layer\", \"shape\", \"mean\", \"std\", \"min\", \"max\"}], \"pooled\": [values]}, or "
      "{\"file\", "
      "\"error\"}.\n"
      "--out FILE.npy          pooled [N,C], one row per picture that could be read; with --map I the map [N,C,H,W]\n"
      "--out FILE.safetensors  pooled [N,C] and map_I [N,C,H,W] for each layer; metadata: files (a JSON list), model,\n"
      "                        dtype\n"
      "Maps of several pictures in one file need pictures of one size; pooled vectors do not. JSON with --out: "
      "{\"out\",\n"
      "\"dtype\", \"tensors\": {name: shape}, \"files\"}.\n\n"
      "Examples:\n"
      "  weft features photo.jpg\n"
      "  weft features --out embeddings.npy 'photos/*.jpg'\n"
      "  weft features --layers 2,5 --any-size --out maps.safetensors photo.jpg");
}

struct Statistics {
  double mean = 0, deviation = 0;
  float least = 0, greatest = 0;
};

Statistics statistics_of(std::span<const float> values) {
  if (values.empty()) return {};
  double sum = 0, squares = 0;
  for (const float value : values) sum += value;
  const double mean = sum / static_cast<double>(values.size());
  for (const float value : values) squares += (value - mean) * (value - mean);
  const auto [least, greatest] = std::ranges::minmax(values);
  return {mean, std::sqrt(squares / static_cast<double>(values.size())), least, greatest};
}

// Row `i` of a tensor [N,...].
std::span<const float> row(const Tensor& tensor, std::size_t i) {
  const auto size = static_cast<std::size_t>(tensor.elements() / tensor.shape()[0]);
  return tensor.data<float>().subspan(i * size, size);
}

// The shape of one row.
std::vector<std::int64_t> row_shape(const Tensor& tensor) {
  const auto extents = tensor.shape().extents().subspan(1);
  return {extents.begin(), extents.end()};
}

void print_features(const std::string& file, DType dtype, const Features& features, std::size_t i, bool json) {
  if (!json) fmt::print("{}{}\n", one_line(file), dtype_note(dtype));
  Json layers = Json::array();
  const auto tell = [&](const std::string& name, const Tensor& tensor) {
    const Statistics s = statistics_of(row(tensor, i));
    fmt::print("  {:<10}{:<18}mean {:<11.4g}std {:<11.4g}min {:<11.4g}max {:.4g}\n", name,
               Shape(row_shape(tensor)).str(), s.mean, s.deviation, s.least, s.greatest);
  };
  for (std::size_t j = 0; j < features.maps.size(); ++j) {
    if (!json) {
      tell(fmt::format("layer {}", features.layers[j]), features.maps[j]);
      continue;
    }
    const Statistics s = statistics_of(row(features.maps[j], i));
    layers.push_back({{"layer", features.layers[j]},
                      {"shape", row_shape(features.maps[j])},
                      {"mean", s.mean},
                      {"std", s.deviation},
                      {"min", s.least},
                      {"max", s.greatest}});
  }
  if (!json) return tell("pooled", features.pooled);
  const auto pooled = row(features.pooled, i);
  print_json({{"file", file},
              {"dtype", dtype_text(dtype)},
              {"layers", std::move(layers)},
              {"pooled", std::vector<float>(pooled.begin(), pooled.end())}});
}

// Rows of equal shape, gathered batch by batch.
class Rows {
 public:
  // Throws ShapeError where `tensor` [n,...] has rows of another shape.
  void append(const Tensor& tensor) {
    std::vector<std::int64_t> shape = row_shape(tensor);
    if (values_.empty()) shape_ = shape;
    if (shape != shape_) {
      throw ShapeError(fmt::format("its map is {} but those before are {}: maps in one file need pictures of one size",
                                   Shape(shape).str(), Shape(shape_).str()));
    }
    const auto values = tensor.data<float>();
    values_.insert(values_.end(), values.begin(), values.end());
    count_ += tensor.shape()[0];
  }
  Tensor tensor() const {
    std::vector<std::int64_t> extents = shape_;
    extents.insert(extents.begin(), count_);
    return Tensor::of(values_, Shape(extents));
  }

 private:
  std::vector<std::int64_t> shape_;
  std::int64_t count_ = 0;
  std::vector<float> values_;
};

// What goes to --out: names and rows, those of a .npy file being a single one.
class Collector {
 public:
  Collector(const std::string& out, std::optional<int> map) : out_(out), npy_(out.ends_with(".npy")), map_(map) {}

  void append(const Features& features) {
    const bool pooled = !npy_ || !map_;
    if (!npy_ || map_) {
      for (std::size_t j = 0; j < features.maps.size(); ++j) {
        arrays_[fmt::format("map_{}", features.layers[j])].append(features.maps[j]);
      }
    }
    if (pooled) arrays_["pooled"].append(features.pooled);
  }

  void write(const std::vector<std::string>& files, const std::string& model, DType dtype, bool json) const {
    std::map<std::string, Tensor> tensors;
    for (const auto& [name, rows] : arrays_) tensors.emplace(name, rows.tensor());
    if (npy_) {
      write_npy(out_, tensors.begin()->second);
    } else {
      write_safetensors(out_, {tensors.begin(), tensors.end()},
                        {{"files", dump(files)}, {"model", model}, {"dtype", std::string(dtype_text(dtype))}});
    }
    Json shapes = Json::object();
    for (const auto& [name, tensor] : tensors) {
      const auto extents = tensor.shape().extents();
      shapes[name] = std::vector(extents.begin(), extents.end());
      if (!json) fmt::print("{}  {:<10}{}\n", one_line(out_), name, tensor.type());
    }
    if (json) {
      print_json({{"out", out_}, {"dtype", dtype_text(dtype)}, {"tensors", std::move(shapes)}, {"files", files}});
    }
  }

 private:
  std::string out_;
  bool npy_;
  std::optional<int> map_;
  std::map<std::string, Rows> arrays_;
};

std::vector<int> wanted_layers(const Options& o, const Model& model) {
  constexpr int kMany = 1 << 20;
  std::vector<int> layers;
  if (!o.layers.empty()) layers = parse_ints(o.layers, "--layers", -kMany, kMany);
  if (o.map) layers = {*o.map};
  std::vector<int> unique;
  for (const int layer : resolve_layers(*model.data().architecture, layers)) {
    if (std::ranges::find(unique, layer) == unique.end()) unique.push_back(layer);
  }
  return unique;
}

void check(const Options& o) {
  const bool npy = o.out.ends_with(".npy");
  if (!o.out.empty() && !npy && !o.out.ends_with(".safetensors")) {
    fail_usage("--out must end in .npy or .safetensors, got {}", o.out);
  }
  if (o.map && !npy) fail_usage("--map says what --out FILE.npy shall hold; there is no such --out");
  if (o.map && !o.layers.empty()) fail_usage("--map and --layers exclude each other: a .npy file holds one array");
}

int run(const Options& o) {
  check(o);
  const PictureRun pictures = o.run.open();
  const std::vector<int> layers = wanted_layers(o, pictures.model);
  PictureStream stream(pictures_of(o.run.images), pictures.stream);
  const Session session(pictures.model, pictures.session);
  Collector collector(o.out, o.map);
  std::vector<std::string> files;
  bool failed = false;
  for (Batch batch = stream.next(); !batch.empty(); batch = stream.next()) {
    Features features;
    use_batch(batch, [&](std::span<const Image> images) {
      features = session.features(images, layers);
      if (!o.out.empty()) collector.append(features);
    });
    std::size_t i = 0;
    for (const Picture& picture : batch) {
      if (!picture.error.empty()) {
        report_bad_picture(picture, o.run.json && o.out.empty());
        failed = true;
        continue;
      }
      files.push_back(picture.name);
      if (o.out.empty()) print_features(picture.name, session.dtype(), features, i, o.run.json);
      ++i;
    }
    std::fflush(stdout);
  }
  if (!o.out.empty() && !files.empty()) collector.write(files, pictures.name(), session.dtype(), o.run.json);
  return failed ? kFailure : kOk;
}

}  // namespace

void add_features(CLI::App& app, Action& action) {
  add_command(app, action, "features", "Feature maps and pooled vectors of pictures", declare, run);
}

}  // namespace weft::cli
