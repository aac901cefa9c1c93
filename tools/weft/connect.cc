// weft connect: which positions a network's layers connect, and by what weights.
#include "connect/connect.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "api/model_data.h"
#include "arguments.h"
#include "commands.h"
#include "heat_map.h"
#include "image/encode.h"
#include "io/npy.h"
#include "io/output_file.h"

namespace weft::cli {
namespace {

struct Options {
  std::string model;
  std::string image;
  std::string size;
  std::string position;
  std::string channels;
  std::string out;
  std::string max_memory = "1G";
  std::optional<int> layer;
  LoadArguments load;
  int threads = 0;
  bool every = false;
  bool json = false;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("MODEL", o.model, "A preset (see `weft models`) or a checkpoint file")
      ->required()
      ->type_name("PRESET|FILE");
  app.add_option("IMAGE", o.image, "A picture")->required()->type_name("");
  app.add_option("--layer", o.layer, "Only this layer; negative ones count from the end")->type_name("N");
  app.add_flag("--all", o.every, "Tell every layer, not only what those of a kind have in common");
  app.add_option("--size", o.size, "Resize the picture to this (default: what the model asks for)")->type_name("N|HxW");
  app.add_option("--out", o.out,
                 "Write pictures and arrays to this folder: of each layer a row of its matrix over the picture "
                 "(…-row.png), the matrices (…-matrix.png, .npy), and of the network its effective receptive field")
      ->type_name("DIR");
  app.add_option("--position", o.position,
                 "Of which output, in pixels of the resized picture, the row and the receptive field are (default: "
                 "the centre)")
      ->type_name("Y,X");
  app.add_option("--channels", o.channels,
                 "Of which channels matrices are shown and ranks told (default: four, evenly spaced among those that "
                 "differ)")
      ->type_name("C,…");
  app.add_option("--max-memory", o.max_memory,
                 "Leave out layers whose matrices would take more than this (default 1G): each takes 4 bytes for every "
                 "pair of positions, and 8 for its rank")
      ->type_name("SIZE");
  o.load.declare(app);
  declare_threads(app, o.threads);
  declare_json(app, o.json);
  app.footer(
      "A layer that mixes positions is a linear map at a given picture: each output is a sum of inputs at all "
      "positions,\n"
      "with weights that may depend on the picture. The weights are measured by running the layer on unit vectors, "
      "and\n"
      "from them what tells kinds of layers apart (Han et al. 2022, arXiv:2106.04263; docs/connections.md):\n"
      "  positions   the share of pairs of positions that are connected, and within which window\n"
      "  channels    whether channels are connected with others\n"
      "  rank        of the matrix, and of what goes from the first half of the positions to the second\n"
      "  shared      whether weights are the same for the same offset, and in how many channels\n"
      "  dynamic     whether weights are others for another picture (noise is taken)\n"
      "Layers that would take more than some minutes are left out unless --layer names theirs. The receptive field is\n"
      "|d output / d pixel| over all channels, by libtorch; without it all else is written, and a line says so.\n\n"
      "Examples:\n"
      "  weft connect vrwkv_tiny photo.jpg\n"
      "  weft connect deit_tiny_patch16_224 photo.jpg --layer 3 --out connections --position 100,60\n"
      "  weft connect model.safetensors photo.jpg --size 64 --all --json");
}

// The picture as the model sees it.
struct Subject {
  Model model;
  Image picture;
  Tensor input;
};

Subject open(const Options& o) {
  Subject s{.model = load_or_create(o.model, for_size(o.model, o.load.options(), given_size(o.size))),
            .picture = {},
            .input = {}};
  (void)require_pictures(*s.model.data().architecture);
  if (s.model.in_channels() != 3) {
    fail<UnsupportedError>("connect", "the model takes {} channels, pictures have 3", s.model.in_channels());
  }
  Preprocess how = s.model.preprocess();
  s.picture = decode_image(o.image);
  if (o.size.empty()) {
    s.picture = prepare(s.picture, how);
  } else {
    const Size size = parse_size(o.size, "--size");
    constexpr std::int64_t kPixelBytes = 3 * (1 + 2 * sizeof(float));  // the picture, and two inputs
    const std::int64_t bytes = size.height * size.width * kPixelBytes;
    if (bytes > parse_bytes(o.max_memory, "--max-memory")) {
      fail<MemoryError>("connect",
                        "a picture of {}x{} takes {} MiB alone; take a smaller --size or allow more by "
                        "--max-memory",
                        size.height, size.width, bytes >> 20);
    }
    s.picture = resize(s.picture, size.height, size.width, how.filter);
  }
  s.input = to_input({&s.picture, 1}, how.any_size());
  return s;
}

// The pixel of --position.
Cell pixel_of(const Options& o, const Image& picture) {
  if (o.position.empty()) return {picture.height / 2, picture.width / 2};
  const std::vector<int> at = parse_ints(o.position, "--position", 0, 1 << 20);
  if (at.size() != 2 || at[0] >= picture.height || at[1] >= picture.width) {
    fail_usage("--position must be Y,X within the {}x{} pixels of the picture, got {}", picture.height, picture.width,
               o.position);
  }
  return {at[0], at[1]};
}

// "2", or "2 … 5" where there are several.
class Range {
 public:
  void add(double value) {
    least_ = std::min(least_, value);
    most_ = std::max(most_, value);
  }
  std::string text(int digits, std::string_view unit = "") const {
    const std::string least = fmt::format("{:.{}f}", least_, digits), most = fmt::format("{:.{}f}", most_, digits);
    return (least == most ? least : fmt::format("{} … {}", least, most)) + std::string(unit);
  }

 private:
  double least_ = std::numeric_limits<double>::infinity();
  double most_ = -std::numeric_limits<double>::infinity();
};

std::string window_text(const Reach& reach) {
  return fmt::format("{}x{}", reach.up + reach.down + 1, reach.left + reach.right + 1);
}

// Layers of a kind that are alike in all that the table tells by yes and no.
struct Relation {
  std::string kind;
  std::vector<const Connection*> members;

  static auto key(const Connection& c) {
    return std::tuple(c.skipped.empty(), c.sparse(), c.crosses_channels, c.low_rank(), c.shares_positions,
                      c.shares_channels, c.dynamic());
  }

  template <class F>
  Range range(F&& f) const {
    Range range;
    for (const Connection* c : members) range.add(static_cast<double>(f(*c)));
    return range;
  }

  std::string positions() const {
    const Connection& c = *members[0];
    if (!c.sparse()) return "all";
    const std::string share = range([](const Connection& m) { return 100 * (1 - m.unconnected); }).text(1, " %");
    const bool alike = std::ranges::all_of(members, [&](const Connection* m) {
      return m->reach && c.reach && window_text(*m->reach) == window_text(*c.reach);
    });
    return alike ? fmt::format("{} in {}", share, window_text(*c.reach)) : share;
  }
  std::string rank() const {
    if (std::ranges::any_of(members, [](const Connection* c) { return !c->rank; })) return "?";
    return fmt::format("{} of {}, halves {}", range([](const Connection& c) { return *c.rank; }).text(0),
                       range([](const Connection& c) { return std::min(c.inputs, c.outputs); }).text(0),
                       range([](const Connection& c) { return *c.half_rank; }).text(0));
  }
  std::string shared_positions() const {
    const Connection& c = *members[0];
    return !c.spread ? "no offsets" : c.shares_positions ? "yes" : "no";
  }
  std::string shared_channels() const {
    return fmt::format("{}: {} of {}", members[0]->shares_channels ? "yes" : "no",
                       range([](const Connection& c) { return c.distinct; }).text(0),
                       range([](const Connection& c) { return c.channels; }).text(0));
  }
  std::string dynamic() const {
    if (!members[0]->dynamic()) return "no";
    return fmt::format("yes: {}", range([](const Connection& c) { return c.change; }).text(2));
  }
};

std::vector<Relation> relations_of(const std::vector<Connection>& connections) {
  std::vector<Relation> relations;
  for (const Connection& c : connections) {
    const auto alike = std::ranges::find_if(relations, [&](const Relation& r) {
      return r.kind == c.kind && Relation::key(*r.members[0]) == Relation::key(c);
    });
    if (alike == relations.end()) {
      relations.push_back({c.kind, {&c}});
    } else {
      alike->members.push_back(&c);
    }
  }
  return relations;
}

using Line = std::vector<std::string>;

Line line_of(const std::string& name, const Relation& r) {
  const Connection& c = *r.members[0];
  if (!c.skipped.empty()) {
    return {name, fmt::format("not measured: {}{}", r.members.size() > 1 ? "among others, " : "", c.skipped)};
  }
  return {name,       r.positions(),        c.crosses_channels ? "connected" : "apart",
          r.rank(),   r.shared_positions(), r.shared_channels(),
          r.dynamic()};
}

std::size_t letters(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

void print_table(const std::vector<Connection>& connections, bool every) {
  std::vector<Line> lines = {
      {"layers", "positions", "channels", "rank", "shared by positions", "by channels", "dynamic"}};
  for (const Relation& r : relations_of(connections)) {
    lines.push_back(line_of(r.members.size() > 1 ? fmt::format("{} × {}", r.kind, r.members.size()) : r.kind, r));
    if (!every) continue;
    for (const Connection* c : r.members) lines.push_back(line_of("  " + c->place, {c->kind, {c}}));
  }
  std::vector<std::size_t> widths(lines[0].size());
  for (const Line& line : lines) {
    const std::size_t whole = line.size() == widths.size() ? line.size() : 1;  // a reason takes what room it needs
    for (std::size_t i = 0; i < whole; ++i) widths[i] = std::max(widths[i], letters(line[i]) + 2);
  }
  for (const Line& line : lines) {
    std::string text = "  ";
    for (std::size_t i = 0; i < line.size(); ++i) {
      text += line[i];
      if (i + 1 < line.size()) text.append(widths[i] - letters(line[i]), ' ');
    }
    fmt::print("{}\n", text);
  }
}

Json grid_json(const std::optional<Grid>& grid) { return grid ? Json({grid->height, grid->width}) : Json(nullptr); }

Json to_json(const Connection& c) {
  Json json = {{"place", c.place},
               {"kind", c.kind},
               {"outputs", c.outputs},
               {"inputs", c.inputs},
               {"channels", c.channels},
               {"output_grid", grid_json(c.output_grid)},
               {"input_grid", grid_json(c.input_grid)}};
  if (!c.skipped.empty()) {
    json["skipped"] = c.skipped;
    return json;
  }
  const auto optional = [](const auto& value) { return value ? Json(*value) : Json(nullptr); };
  json["sparse"] = c.sparse();
  json["connected"] = 1 - c.unconnected;
  json["window"] =
      c.reach ? Json({c.reach->up + c.reach->down + 1, c.reach->left + c.reach->right + 1}) : Json(nullptr);
  json["channels_connected"] = c.crosses_channels;
  json["low_rank"] = c.low_rank();
  json["rank"] = optional(c.rank);
  json["half_rank"] = optional(c.half_rank);
  json["shared_by_positions"] = c.shares_positions;
  json["spread"] = optional(c.spread);
  json["shared_by_channels"] = c.shares_channels;
  json["distinct"] = c.distinct;
  json["dynamic"] = c.dynamic();
  json["change"] = c.change;
  return json;
}

// Writes the files of --out.
class Album {
 public:
  Album(const Options& o, const Image& picture) : folder_(o.out), picture_(picture), pixel_(pixel_of(o, picture)) {
    if (o.out.empty()) return;
    std::error_code error;
    std::filesystem::create_directories(folder_, error);
    if (error) fail<IoError>(one_line(folder_.string()), "cannot make this folder: {}", error.message());
  }

  void add(const Connection& c) {
    if (folder_.empty() || c.kept.empty()) return;
    const std::string name = name_of(c);
    Tensor all(DType::kF32, {static_cast<std::int64_t>(c.kept.size()), c.outputs, c.inputs});
    std::vector<Field> matrices, rows;
    const Cell output = cell(c.output_grid), input = cell(c.input_grid);
    auto to = all.mutable_data<float>().begin();
    for (const KeptMatrix& kept : c.kept) {
      const auto weights = kept.weights.data<float>();
      to = std::ranges::copy(weights, to).out;
      matrices.push_back({c.outputs, c.inputs, weights});
      if (!c.output_grid || !c.input_grid) continue;
      const std::int64_t row = c.output_grid->prefix + output.y * c.output_grid->width + output.x;
      rows.push_back({c.input_grid->height, c.input_grid->width,
                      weights.subspan(static_cast<std::size_t>(row * c.inputs + c.input_grid->prefix),
                                      static_cast<std::size_t>(c.input_grid->height * c.input_grid->width))});
    }
    write_npy(folder_ / (name + ".npy"), all);
    write(name + "-matrix.png", heat_map(matrices));
    if (!rows.empty()) write(name + "-row.png", heat_over(picture_, rows, input));
  }

  void add_field(const Tensor& field) {
    std::vector<float> roots;  // the eye sees ratios
    for (const float value : field.data<float>()) roots.push_back(std::sqrt(value));
    const Field whole{field.shape()[0], field.shape()[1], roots};
    write("receptive_field.png", heat_over(picture_, {&whole, 1}, pixel_));
  }

  /// The cell of a grid that holds the pixel of --position.
  Cell cell(const std::optional<Grid>& grid) const {
    if (!grid) return {};
    return {pixel_.y * grid->height / picture_.height, pixel_.x * grid->width / picture_.width};
  }

 private:
  // "backbone-layers-0-att-bi_wkv", with a number where there are several.
  std::string name_of(const Connection& c) {
    std::string name = fmt::format("{}-{}", c.place, c.composed() ? "composed" : c.kind);
    std::ranges::replace(name, '.', '-');
    const int count = ++names_[name];
    return count == 1 ? name : fmt::format("{}-{}", name, count);
  }

  void write(const std::string& name, const Image& image) const {
    OutputFile file(folder_ / name);
    file.write(encode_png(image));
    file.commit();
  }

  std::filesystem::path folder_;
  const Image& picture_;
  Cell pixel_;
  std::map<std::string, int> names_;
};

// The side of the smallest square around a pixel that holds half of the field.
std::int64_t half_side(const Tensor& field, const Cell& at) {
  const std::int64_t height = field.shape()[0], width = field.shape()[1];
  std::vector<double> rings(static_cast<std::size_t>(std::max(height, width)));
  double whole = 0;
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const double value = field.data<float>()[static_cast<std::size_t>(y * width + x)];
      rings[static_cast<std::size_t>(std::max(std::abs(y - at.y), std::abs(x - at.x)))] += value;
      whole += value;
    }
  }
  double within = 0;
  for (std::size_t ring = 0; ring < rings.size(); ++ring) {
    within += rings[ring];
    if (within >= whole / 2) return 2 * static_cast<std::int64_t>(ring) + 1;
  }
  return std::max(height, width);
}

// The receptive field where libtorch is there; else a line about it, and nothing.
std::optional<Tensor> field_of(const Options& o, const Subject& s, const Album& album) {
  std::shared_ptr<TorchEngine> engine;
  try {
    engine = load_torch_engine({.dtype = DType::kF32, .threads = o.threads});
  } catch (const UnsupportedError& error) {
    print_error(fmt::format("no receptive field: {}", error.what()));
    return std::nullopt;
  }
  const ModelData& data = s.model.data();
  const auto graph = build_graph(*data.architecture, s.input.shape(), std::vector{data.architecture->depth() - 1});
  const Shape& map = graph->value(graph->outputs()[0].value).type.shape;
  const Cell at = album.cell(Grid{map[2], map[3]});
  return receptive_field(*engine, *graph, data.weights, s.input, 0, at.y, at.x);
}

ConnectOptions connect_options(const Options& o, const Architecture& architecture) {
  ConnectOptions options;
  options.measure.max_bytes = parse_bytes(o.max_memory, "--max-memory");
  if (!o.channels.empty()) options.measure.channels = parse_ints(o.channels, "--channels", 0, 1 << 20);
  if (o.layer) {
    options.place = fmt::format("{}{}", architecture.block_prefix(), resolve_layers(architecture, {&*o.layer, 1})[0]);
    options.measure.max_macs = std::numeric_limits<std::int64_t>::max();
  }
  return options;
}

void check_measured(const std::vector<Connection>& connections, const Options& o) {
  if (connections.empty())
    fail<UnsupportedError>("connect", "nothing {} mixes positions", o.layer ? "in this layer" : "");
  if (std::ranges::all_of(connections, [](const Connection& c) { return !c.skipped.empty(); })) {
    fail<MemoryError>("connect", "{}: {}; take a smaller --size, name a --layer or allow more by --max-memory",
                      connections[0].place, connections[0].skipped);
  }
}

int run(const Options& o) {
  const Subject s = open(o);
  const ModelData& data = s.model.data();
  const ConnectOptions options = connect_options(o, *data.architecture);
  Album album(o, s.picture);
  const Workers workers(o.threads);
  const auto graph = build_graph(*data.architecture, s.input.shape(), {});
  std::vector<Connection> connections;
  for_each_connection(*graph, data.weights, s.input, noise_like(s.input), options, workers, [&](const Connection& c) {
    album.add(c);
    connections.push_back(c);
    connections.back().kept.clear();
  });
  check_measured(connections, o);
  std::optional<Tensor> field;
  if (!o.out.empty()) field = field_of(o, s, album);
  if (field) album.add_field(*field);
  const Cell at = pixel_of(o, s.picture);
  if (o.json) {
    Json json = {{"model", o.model}, {"image", o.image}, {"input", {s.picture.height, s.picture.width}}};
    for (const Connection& c : connections) json["layers"].push_back(to_json(c));
    if (field) json["receptive_field"] = {{"at", {at.y, at.x}}, {"half_within", half_side(*field, at)}};
    print_json(json);
    return kOk;
  }
  fmt::print("{} at {}x{}\n\n", one_line(o.model), s.picture.height, s.picture.width);
  print_table(connections, o.every || o.layer);
  if (field) {
    fmt::print("\n  effective receptive field of ({},{}): half of it within {} pixels to a side\n", at.y, at.x,
               half_side(*field, at));
  }
  return kOk;
}

}  // namespace

void add_connect(CLI::App& app, Action& action) {
  add_command(app, action, "connect", "Which positions each layer connects, and by what weights", declare, run);
}

}  // namespace weft::cli
