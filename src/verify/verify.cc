#include "verify/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "api/model_data.h"
#include "core/format.h"
#include "graph/evaluate.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "io/mapped_file.h"
#include "io/npy.h"
#include "ops/kernels.h"
#include "ops/ops.h"
#include "verify/module_cases.h"
#include "verify/rounding.h"
#include "weft/image.h"

namespace weft {
namespace {

using std::filesystem::path;

// The tolerance for the kernel's formula where a case states none of its own: the closed form leaves out the official
// kernel's EPS, which changes a quotient by up to 2.5e-6 in the cases.
constexpr double kKernelTolerance = 1e-5;

// The share of the largest of all gradients that is added to an array's own largest in cases that ask for it: of some
// parameters the gradient is nothing but rounding.
constexpr double kGradientFloor = 1e-2;

double largest_of(const Tensor& tensor) {
  const Tensor wide = tensor.to(DType::kF64);
  double largest = 0;
  for (const double value : wide.data<double>()) largest = std::max(largest, std::abs(value));
  return largest;
}

// `floor` is added to the largest wanted.
double relative_error(const Tensor& got, const Tensor& want, std::string_view name, double floor = 1e-6) {
  require<ShapeError>(got.shape() == want.shape(), name, "has shape {}, the reference {}", got.shape(), want.shape());
  const Tensor got64 = got.to(DType::kF64);
  const Tensor want64 = want.to(DType::kF64);
  double worst = 0;
  for (std::size_t i = 0; i < got64.data<double>().size(); ++i) {
    const double difference = std::abs(got64.data<double>()[i] - want64.data<double>()[i]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, difference);
  }
  return worst / (largest_of(want64) + floor);
}

class CaseRunner {
 public:
  CaseRunner(path folder, const VerifyOptions& options)
      : folder_(std::move(folder)), place_(folder_.string()), options_(options), workers_(options.threads) {
    const FileBytes file = map_file(folder_ / "meta.json");
    meta_ = parse_json({reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()}, file.name);
    require<IoError>(meta_.is_object(), place_, "meta.json must be an object");
    const bool torch = options.engine == Engine::kTorch;
    require<UnsupportedError>(torch || !options.gradients, "verify", "only the torch engine has gradients");
    require<ConfigError>(!torch || options.torch != nullptr, "verify", "the torch engine has not been loaded");
  }

  VerifyResult run() {
    VerifyResult result{
        .name = folder_.filename().empty() ? folder_.parent_path().filename().string() : folder_.filename().string(),
        .system = at(meta_, "system").get<std::string>()};
    if (result.system == "bi_wkv-op") {
      for (const Json& c : at(meta_, "cases")) run_bi_wkv(c);
    } else if (result.system == "pillow-resize") {
      for (const Json& c : at(meta_, "cases")) run_resize(c);
    } else if (!run_module(result.system)) {
      run_model(result.system);
    }
    require<IoError>(!checks_.empty(), place_, "the case holds nothing to compare");
    result.checks = std::move(checks_);
    return result;
  }

 private:
  const Json& at(const Json& json, const char* key) const {
    require<IoError>(json.is_object() && json.contains(key), place_, "meta.json has no {}", key);
    return json[key];
  }

  Tensor read(const Json& file) const {
    require<IoError>(file.is_string(), place_, "expected the name of a file, got {}", printable(file.dump(), 60));
    return read_npy(folder_ / file.get<std::string>());
  }

  // What a graph computes with: f32, or as it is in the file for the references.
  Tensor read_input(const Json& file) const {
    const Tensor tensor = read(file);
    return options_.engine == Engine::kReference ? tensor : tensor.to(DType::kF32);
  }

  void check(std::string name, double error, double tolerance) {
    checks_.push_back({std::move(name), error, tolerance});
  }

  std::vector<Tensor> run_graph(const Graph& graph, const Weights& weights, std::span<const Tensor> inputs) {
    if (options_.engine == Engine::kReference) return evaluate_reference(graph, weights, inputs);
    if (options_.engine == Engine::kTorch) return options_.torch->run(graph, weights, inputs);
    const Plan plan(graph, weights, workers_, std::make_shared<PackCache>(), options_.dtype);
    Plan::Context context(plan);
    std::vector<Tensor> outputs;
    std::vector<std::byte*> out;
    for (const Plan::Port& port : plan.outputs()) out.push_back(outputs.emplace_back(port.type).mutable_raw());
    std::vector<Tensor> f32;
    std::vector<const std::byte*> in;
    f32.reserve(inputs.size());
    for (const Tensor& input : inputs) {
      const bool whole = input.dtype() == DType::kI64;
      in.push_back(f32.emplace_back(whole ? input : input.to(DType::kF32)).raw());
    }
    plan.run(in, out, context, workers_);
    return outputs;
  }

  // A part of a model, if this is the case of one.
  bool run_module(const std::string& system) {
    std::map<std::string, Tensor> inputs;
    std::map<std::string, TensorType> types;
    for (const auto& [name, input] : at(meta_, "inputs").items()) {
      const Tensor& tensor = inputs.emplace(name, read(at(input, "file"))).first->second;
      types.emplace(name, TensorType{DType::kF32, tensor.shape()});
    }
    const auto graph = build_module(system, at(meta_, "config"), types);
    if (!graph) return false;
    std::vector<Tensor> in;
    for (const int id : graph->inputs()) in.push_back(inputs.at(graph->value(id).name));
    const Checkpoint file = read_checkpoint(folder_ / "weights.pth", {});
    const Weights weights{file.tensors.begin(), file.tensors.end()};
    const double tolerance = at(meta_, "tolerance_f32").get<double>() + rounding_tolerance(*graph, options_.dtype);
    check_parameter_count(*graph);
    const std::vector<Tensor> outputs = run_graph(*graph, weights, in);
    const auto output_index = [&](const std::string& name) {
      const auto found = std::ranges::find(graph->outputs(), name, &Graph::Output::name);
      require<IoError>(found != graph->outputs().end(), place_, "there is no output {}", printable(name, 40));
      return static_cast<std::size_t>(found - graph->outputs().begin());
    };
    for (const auto& [name, output] : at(meta_, "outputs").items()) {
      check(name, relative_error(outputs[output_index(name)], read(at(output, "file")), name), tolerance);
    }
    if (!options_.gradients || !meta_.contains("gradients")) return true;
    std::vector<Tensor> cotangents = no_cotangents(*graph);
    for (const auto& [name, cotangent] : at(meta_, "cotangents").items()) {
      cotangents[output_index(name)] = read(cotangent);
    }
    check_gradients(*graph, weights, in, cotangents);
    return true;
  }

  void check_parameter_count(const Graph& graph) {
    if (!meta_.contains("params")) return;
    check("params", meta_["params"] == graph.parameter_count() ? 0 : 1, 0);
  }

  // y0: logits where there is a head; then what is pooled and one feature map for each of the out_indices.
  void run_model(const std::string& system) {
    const Json& config = at(meta_, "config");
    const Checkpoint file = read_checkpoint(folder_ / "weights.pth", {});
    TensorIndex tensors;
    for (const auto& [name, tensor] : file.tensors) tensors.emplace(name, tensor.type());
    ModelData data{.architecture = configure(system, config, tensors)};
    const Recognition recognition = find_family(data.architecture->family())
                                        .recognise(tensors, data.architecture->config())
                                        .value_or(Recognition{});
    data.weights = weights_of(file.tensors, recognition);
    renamed_ = recognition.renamed;
    check_weights(data, place_);
    if (data.architecture->language()) return run_language(*data.architecture->language(), data.weights);
    const Tensor input = read(at(at(at(meta_, "inputs"), "x"), "file"));
    const PictureArchitecture& architecture = require_pictures(*data.architecture);
    const std::vector<int> layers = architecture.out_indices();
    const auto graph = build_graph(*data.architecture, input.shape(), layers);
    const double tolerance = at(meta_, "tolerance_f32").get<double>() + rounding_tolerance(*graph, options_.dtype);
    check_parameter_count(*graph);
    const bool has_head = architecture.classes() > 0;
    const std::vector<Tensor> outputs = run_graph(*graph, data.weights, {&input, 1});
    std::map<std::string, std::size_t> index;  // of the graph's outputs, by the case's names
    std::size_t maps = 0;
    for (const auto& [name, output] : at(meta_, "outputs").items()) {
      Tensor want = read(at(output, "file"));
      const std::size_t i = output_index(*graph, has_head && index.empty(), want.shape(), maps);
      if (outputs[i].shape() != want.shape()) want = channels_first(want);
      index.emplace(name, i);
      check(name, relative_error(outputs[i], want, name), tolerance);
    }
    if (options_.gradients && meta_.contains("gradients")) {
      std::vector<Tensor> cotangents = no_cotangents(*graph);
      for (const auto& [name, cotangent] : at(meta_, "cotangents").items()) {
        require<IoError>(index.contains(name), place_, "there is a cotangent of {}, which is no output",
                         printable(name, 40));
        const std::size_t i = index[name];
        cotangents[i] = read(cotangent);
        if (cotangents[i].shape() != outputs[i].shape()) cotangents[i] = channels_first(cotangents[i]);
      }
      check_gradients(*graph, data.weights, {&input, 1}, cotangents);
    }
    if (has_head && meta_.contains("official_cuda_kernel") && meta_["official_cuda_kernel"].contains("y0")) {
      Json kernel_config = data.architecture->config();
      kernel_config["wkv"] = name_of(Wkv::kReleasedKernel);
      const auto other = find_family(data.architecture->family()).configure(kernel_config);
      const auto kernel_graph = build_graph(*other, input.shape(), layers);
      const Tensor logits = run_graph(*kernel_graph, data.weights, {&input, 1}).back();
      const Tensor want = read(meta_["official_cuda_kernel"]["y0"]);
      check("y0 (wkv = released_kernel)", relative_error(logits, want, "y0"), std::max(tolerance, kKernelTolerance));
    }
  }

  // Tokens as inputs named "tokens…"; of each the outputs "logits…", also of the last token alone ("expected_logits…"),
  // and "state…", and how the text goes on where the likeliest token is always taken ("greedy…"). Computed as a
  // sequence, and once more token by token.
  void run_language(const LanguageArchitecture& architecture, const Weights& weights) {
    constexpr std::string_view kTokens = "tokens";
    check_parameter_count(*native_graph(architecture));
    const Json& outputs = at(meta_, "outputs");
    for (const auto& [name, input] : at(meta_, "inputs").items()) {
      require<IoError>(name.starts_with(kTokens), place_, "there is an input {}, tokens expected", printable(name, 40));
      const std::string suffix = name.substr(kTokens.size());
      const Tensor tokens = read(at(input, "file"));
      require<IoError>(tokens.dtype() == DType::kI64 && tokens.shape().rank() == 2 && tokens.elements() > 0, place_,
                       "{} must be whole numbers i64[B,T], got {}", name, tokens.type());
      const auto whole = build_language_graph(architecture, tokens.shape()[0], tokens.shape()[1], LogitsOf::kAll);
      const auto step = build_language_graph(architecture, tokens.shape()[0], 1, LogitsOf::kAll);
      const double tolerance = at(meta_, "tolerance_f32").get<double>() + rounding_tolerance(*whole, options_.dtype);
      const auto compare = [&](const std::string& output, const char* mode, const Tensor& got) {
        if (!outputs.contains(output)) return;
        const Tensor want = read(at(outputs[output], "file"));
        check(fmt::format("{}{}", output, mode), relative_error(got.reshaped(want.shape()), want, output), tolerance);
      };
      std::vector<Tensor> states = empty_states(*whole);
      const Tensor logits = run_language_graph(*whole, weights, tokens, states);
      compare("logits" + suffix, "", logits);
      compare("expected_logits" + suffix, "", column(logits, logits.shape()[1] - 1));
      compare("state" + suffix, "", official_state(*whole, states));
      states = empty_states(*step);
      std::vector<Tensor> stepped;
      for (std::int64_t t = 0; t < tokens.shape()[1]; ++t) {
        stepped.push_back(run_language_graph(*step, weights, column(tokens, t), states));
      }
      compare("logits" + suffix, " (token by token)", joined(stepped));
      compare("state" + suffix, " (token by token)", official_state(*step, states));
      if (outputs.contains("greedy" + suffix)) {
        const Tensor want = read(at(outputs["greedy" + suffix], "file"));
        check("greedy" + suffix, wrong_tokens(*step, weights, stepped.back(), std::move(states), want), 0);
      }
      if (options_.gradients && meta_.contains("gradients") && meta_["cotangents"].contains("logits" + suffix)) {
        Graph training(std::string(architecture.family()), /*training=*/true);
        training.output("logits", architecture.build(training, training.input(name, tokens.type()), LogitsOf::kAll));
        const Tensor cotangent = read(meta_["cotangents"]["logits" + suffix]);
        check_gradients(training, weights, {&tokens, 1}, {&cotangent, 1});
      }
    }
  }

  static std::vector<Tensor> empty_states(const Graph& graph) {
    std::vector<Tensor> states;
    for (const Graph::State& state : graph.states()) states.push_back(state.empty);
    return states;
  }

  // Returns the logits and moves the states.
  Tensor run_language_graph(const Graph& graph, const Weights& weights, const Tensor& tokens,
                            std::vector<Tensor>& states) {
    std::vector<Tensor> inputs{tokens};
    inputs.insert(inputs.end(), states.begin(), states.end());
    const std::vector<Tensor> outputs = run_graph(graph, weights, inputs);
    for (std::size_t i = 0; i < states.size(); ++i) {
      states[i] = outputs[static_cast<std::size_t>(graph.states()[i].output)];
    }
    return outputs.back();
  }

  // x[:, t] of [B,T,…], as [B,1,…].
  static Tensor column(const Tensor& x, std::int64_t t) {
    std::vector<std::int64_t> extents(x.shape().extents().begin(), x.shape().extents().end());
    extents[1] = 1;
    Tensor result(x.dtype(), Shape(extents));
    const std::size_t bytes = result.bytes() / static_cast<std::size_t>(extents[0]);
    for (std::int64_t b = 0; b < extents[0]; ++b) {
      const auto row = static_cast<std::size_t>(b * x.shape()[1] + t);
      std::memcpy(result.mutable_raw() + static_cast<std::size_t>(b) * bytes, x.raw() + row * bytes, bytes);
    }
    return result;
  }

  // Tensors [B,1,V] as [B,T,V], in double precision.
  static Tensor joined(const std::vector<Tensor>& columns) {
    std::vector<Tensor> wide;
    wide.reserve(columns.size());
    for (const Tensor& column : columns) wide.push_back(column.to(DType::kF64));
    const Shape& shape = columns[0].shape();
    Tensor result(DType::kF64, {shape[0], static_cast<std::int64_t>(columns.size()), shape[2]});
    reference(Concat{.axis = 1}, wide, {&result, 1});
    return result;
  }

  // RWKV-4's, of each layer the rows: last input of the channel mix, of the time mix, then its three sums. [B,5·L,C]
  static Tensor official_state(const Graph& graph, const std::vector<Tensor>& states) {
    std::map<std::string, Tensor, std::less<>> parts;
    for (std::size_t i = 0; i < states.size(); ++i) {
      const Tensor& state = states[i];
      const Shape& shape = state.shape();
      const Shape rows = shape.rank() == 2 ? Shape{shape[0], 1, shape[1]} : shape;
      parts.emplace(graph.value(graph.states()[i].input).name, state.to(DType::kF64).reshaped(rows));
    }
    std::vector<Tensor> ordered;
    for (std::size_t layer = 0; layer < states.size() / 3; ++layer) {
      for (const char* part : {"ffn.x", "att.x", "att.wkv"}) {
        ordered.push_back(parts.at(fmt::format("blocks.{}.{}", layer, part)));
      }
    }
    const Shape& shape = ordered[0].shape();
    Tensor result(DType::kF64, {shape[0], static_cast<std::int64_t>(5 * ordered.size() / 3), shape[2]});
    reference(Concat{.axis = 1}, ordered, {&result, 1});
    return result;
  }

  // How many tokens are others than wanted, taking the likeliest each time.
  double wrong_tokens(const Graph& step, const Weights& weights, Tensor logits, std::vector<Tensor> states,
                      const Tensor& want) {
    double wrong = 0;
    for (const std::int64_t token : want.data<std::int64_t>()) {
      const Tensor wide = logits.to(DType::kF64);
      const std::int64_t best = std::ranges::max_element(wide.data<double>()) - wide.data<double>().begin();
      wrong += best == token ? 0 : 1;
      Tensor next(DType::kI64, {1, 1});
      next.mutable_data<std::int64_t>()[0] = token;
      logits = run_language_graph(step, weights, next, states);
    }
    return wrong;
  }

  // Which of the graph's outputs a case's next one is, by its shape: the logits, a map, or what is pooled. `maps`
  // counts the maps.
  std::size_t output_index(const Graph& graph, bool logits, const Shape& shape, std::size_t& maps) const {
    if (logits) return graph.outputs().size() - 1;
    const std::string name = shape.rank() == 2 ? "pooled" : fmt::format("map{}", maps++);
    const auto found = std::ranges::find(graph.outputs(), name, &Graph::Output::name);
    require<IoError>(found != graph.outputs().end(), place_, "the model has {} outputs, fewer than the case",
                     graph.outputs().size());
    return static_cast<std::size_t>(found - graph.outputs().begin());
  }

  // [B,H,W,C], as some cases hold their maps, as [B,C,H,W].
  static Tensor channels_first(const Tensor& map) {
    if (map.shape().rank() != 4) return map;
    Tensor result(DType::kF64, {map.shape()[0], map.shape()[3], map.shape()[1], map.shape()[2]});
    const Tensor wide = map.to(DType::kF64);
    reference(Permute{{0, 3, 1, 2}}, {&wide, 1}, {&result, 1});
    return result;
  }

  static std::vector<Tensor> no_cotangents(const Graph& graph) {
    std::vector<Tensor> cotangents;
    for (const Graph::Output& output : graph.outputs()) {
      cotangents.push_back(Tensor::zeros({DType::kF32, graph.value(output.value).type.shape}));
    }
    return cotangents;
  }

  void check_gradients(const Graph& graph, const Weights& weights, std::span<const Tensor> inputs,
                       std::span<const Tensor> cotangents) {
    std::map<std::string, Tensor, std::less<>> got, want;
    const TorchGradients gradients = options_.torch->differentiate(graph, weights, inputs, cotangents);
    for (const auto& [name, gradient] : gradients.parameters) {
      got.emplace(name, gradient);
      want.emplace(name, Tensor::zeros(gradient.type()));  // unless the file says otherwise
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      got.emplace(inputs.size() == 1 ? "x" : graph.value(graph.inputs()[i]).name, gradients.inputs[i]);
    }
    for (const auto& [name, file] : at(meta_, "gradients").items()) {
      if (name != "parameters") {
        want.insert_or_assign(name, read(file));
        continue;
      }
      for (const auto& [parameter, gradient] : read_checkpoint(folder_ / file.get<std::string>(), {}).tensors) {
        const auto other = renamed_.find(parameter);
        want.insert_or_assign(other == renamed_.end() ? parameter : other->second, gradient);
      }
    }
    compare_gradients("", got, want, at(meta_, "tolerance_grad_f32").get<double>());
  }

  void compare_gradients(std::string_view prefix, const std::map<std::string, Tensor, std::less<>>& got,
                         const std::map<std::string, Tensor, std::less<>>& want, double tolerance) {
    double largest = 0;
    for (const auto& [name, gradient] : want) largest = std::max(largest, largest_of(gradient));
    const Json vanishing = meta_.value("zero_gradients", Json::array());
    for (const auto& [name, gradient] : want) {
      // What cancels is rounding alone, in proportion to what cancels: to be measured by the largest gradient.
      const bool vanishes = std::ranges::find(vanishing, Json(name)) != vanishing.end();
      const double floor = vanishes ? largest : meta_.contains("grad_metric") ? kGradientFloor * largest : 1e-6;
      const auto found = got.find(name);
      require<IoError>(found != got.end(), place_, "there is a gradient of {}, which the case does not have",
                       printable(name, 80));
      check(fmt::format("{}gradient of {}", prefix, name), relative_error(found->second, gradient, name, floor),
            tolerance);
    }
  }

  // The official configuration is `config.model`, or `config` itself.
  std::unique_ptr<const Architecture> configure(const std::string& system, const Json& config,
                                                const TensorIndex& tensors) const {
    const Json& official = config.contains("model") ? config["model"] : config;
    std::string known;
    for (const Family& family : families()) {
      if (auto architecture = family.from_official(system, official, tensors)) return architecture;
      if (system == family.name) return family.configure(config);
      known += fmt::format(" {}", family.name);
    }
    fail<UnsupportedError>(place_, "weft knows no system {}; it has the families{}", printable(system, 60), known);
  }

  void run_bi_wkv(const Json& c) {
    const Json& files = at(c, "files");
    const auto name = at(c, "name").get<std::string>();
    const Tensor k = read_input(at(files, "k"));
    Weights weights;  // as in a model, where w and u come from parameters
    for (const char* parameter : {"v", "w", "u"}) weights.emplace(parameter, read_input(at(files, parameter)));
    const auto compare = [&](const char* file, Wkv form) {
      if (!files.contains(file)) return;
      Graph graph("bi_wkv");
      const auto parameter = [&](const char* p) { return graph.parameter(p, weights.at(p).type(), init::constant(0)); };
      const Value y = bi_wkv(graph.input("k", k.type()), parameter("v"), parameter("w"), parameter("u"), form);
      graph.output("y", y);
      const std::string label = fmt::format("{} (wkv = {})", name, name_of(form));
      check(label, relative_error(run_graph(graph, weights, {&k, 1})[0], read(files[file]), name),
            at(c, "tolerance_f32").get<double>());
      if (options_.gradients && form == Wkv::kPaper && files.contains("cot_y")) {
        const Tensor cotangent = read(files["cot_y"]);
        TorchGradients got = options_.torch->differentiate(graph, weights, {&k, 1}, {&cotangent, 1});
        got.parameters.emplace("k", got.inputs[0]);
        std::map<std::string, Tensor, std::less<>> want;
        for (const char* of : {"k", "v", "w", "u"})
          want.emplace(of, read(at(files, fmt::format("grad_{}", of).c_str())));
        compare_gradients(name + " ", got.parameters, want, at(c, "tolerance_grad_f32").get<double>());
      }
    };
    compare("y", Wkv::kPaper);
    compare("y_cuda_kernel", Wkv::kReleasedKernel);
  }

  static Image to_image(const Tensor& pixels) {
    const auto values = pixels.data<std::uint8_t>();
    return {.height = pixels.shape()[0],
            .width = pixels.shape()[1],
            .channels = pixels.shape()[2],
            .pixels = {values.begin(), values.end()}};
  }

  // Equal to the bit, or the largest difference of two pixels.
  void run_resize(const Json& c) {
    const Tensor want = read(at(c, "out"));
    const Image source = to_image(read(at(c, "src")));
    const auto name = at(c, "out").get<std::string>();
    const Filter filter = parse_filter(at(c, "filter").get<std::string>());
    Image got;
    if (c.contains("transform")) {
      // "torchvision Resize(24) on the shorter side …, CenterCrop(20) …"
      int resized = 0;
      int cropped = 0;
      const auto text = c["transform"].get<std::string>();
      const auto number_after = [&](const char* word, int& out) {
        const std::size_t at_word = text.find(word);
        if (at_word != std::string::npos) out = std::atoi(text.c_str() + at_word + std::string_view(word).size());
      };
      number_after("Resize(", resized);
      number_after("CenterCrop(", cropped);
      require<IoError>(resized > 0 && cropped > 0, place_, "cannot read the transform {}", printable(text));
      got = prepare(source, {.resize = resized, .crop = cropped, .filter = filter});
    } else {
      got = resize(source, want.shape()[0], want.shape()[1], filter);
    }
    require<ShapeError>(Shape({got.height, got.width, got.channels}) == want.shape(), name, "has another size than {}",
                        want.shape());
    int worst = 0;
    for (std::size_t i = 0; i < got.pixels.size(); ++i) {
      worst = std::max(worst, std::abs(int{got.pixels[i]} - int{want.data<std::uint8_t>()[i]}));
    }
    check(name, worst, 0);
  }

  path folder_;
  std::string place_;
  VerifyOptions options_;
  Workers workers_;
  Json meta_;
  std::map<std::string, std::string> renamed_;  // parameters that have other names in the case's files
  std::vector<VerifyCheck> checks_;
};

}  // namespace

bool VerifyResult::passed() const { return std::ranges::all_of(checks, &VerifyCheck::passed); }

const VerifyCheck& VerifyResult::worst() const {
  return *std::ranges::max_element(checks, [](const VerifyCheck& a, const VerifyCheck& b) {
    const auto badness = [](const VerifyCheck& c) {
      return c.tolerance > 0 ? c.error / c.tolerance : c.error > 0 ? std::numeric_limits<double>::infinity() : 0;
    };
    return badness(a) < badness(b);
  });
}

VerifyResult verify_case(const path& folder, const VerifyOptions& options) {
  try {
    return CaseRunner(folder, options).run();
  } catch (const Json::exception& error) {
    fail<IoError>(folder.string(), "meta.json is not as expected: {}", printable(error.what()));
  }
}

}  // namespace weft
