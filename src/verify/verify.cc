#include "verify/verify.h"

#include <algorithm>
#include <charconv>
#include <cmath>
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
    } else {
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

  std::vector<Tensor> run_graph(const Graph& graph, const Weights& weights, const Tensor& input) {
    if (options_.engine == Engine::kReference) return evaluate_reference(graph, weights, {&input, 1});
    if (options_.engine == Engine::kTorch) return options_.torch->run(graph, weights, {&input, 1});
    const Plan plan(graph, weights, workers_, std::make_shared<PackCache>(), options_.dtype);
    Plan::Context context(plan);
    std::vector<Tensor> outputs;
    std::vector<std::byte*> out;
    for (const Plan::Port& port : plan.outputs()) out.push_back(outputs.emplace_back(port.type).mutable_raw());
    const Tensor f32 = input.to(DType::kF32);
    const std::byte* const in = f32.raw();
    plan.run({&in, 1}, out, context, workers_);
    return outputs;
  }

  // y0: logits where there is a head; then one feature map for each of the out_indices.
  void run_model(const std::string& system) {
    const Json& config = at(meta_, "config");
    const Checkpoint file = read_checkpoint(folder_ / "weights.pth", {});
    TensorIndex tensors;
    for (const auto& [name, tensor] : file.tensors) tensors.emplace(name, tensor.type());
    ModelData data{.architecture = configure(system, config, tensors)};
    data.weights = {file.tensors.begin(), file.tensors.end()};
    check_weights(data, place_);
    const Tensor input = read(at(at(at(meta_, "inputs"), "x"), "file"));
    const std::vector<int> layers = data.architecture->out_indices();
    const auto graph = build_graph(*data.architecture, input.shape(), layers);
    const double tolerance = at(meta_, "tolerance_f32").get<double>() + rounding_tolerance(*graph, options_.dtype);
    if (meta_.contains("params")) {
      check("params", meta_["params"] == graph->parameter_count() ? 0 : 1, 0);
    }
    const bool has_head = data.architecture->classes() > 0;
    const std::vector<Tensor> outputs = run_graph(*graph, data.weights, input);
    for (const auto& [name, output] : at(meta_, "outputs").items()) {
      const Tensor& got = outputs[output_index(*graph, has_head, name)];
      check(name, relative_error(got, read(at(output, "file")), name), tolerance);
    }
    if (options_.gradients && meta_.contains("gradients")) check_gradients(*graph, has_head, data.weights, input);
    if (has_head && meta_.contains("official_cuda_kernel") && meta_["official_cuda_kernel"].contains("y0")) {
      Json kernel_config = data.architecture->config();
      kernel_config["wkv"] = name_of(Wkv::kReleasedKernel);
      const auto architecture = find_family(data.architecture->family()).configure(kernel_config);
      const auto kernel_graph = build_graph(*architecture, input.shape(), layers);
      const Tensor logits = run_graph(*kernel_graph, data.weights, input).back();
      const Tensor want = read(meta_["official_cuda_kernel"]["y0"]);
      check("y0 (wkv = released_kernel)", relative_error(logits, want, "y0"), std::max(tolerance, kKernelTolerance));
    }
  }

  // The output of the graph that a case calls y3: the logits where there is a head, then the maps of out_indices.
  std::size_t output_index(const Graph& graph, bool has_head, const std::string& name) const {
    const std::size_t count = graph.outputs().size() - 1;  // without the pooled vector
    std::size_t index = count;
    if (name.starts_with('y')) {
      const char* const end = name.data() + name.size();
      if (std::from_chars(name.data() + 1, end, index).ptr != end) index = count;
    }
    require<IoError>(index < count, place_, "output {} is none of the model's {} outputs", printable(name, 40), count);
    if (!has_head) return index;
    return index == 0 ? graph.outputs().size() - 1 : index - 1;  // the logits are the graph's last
  }

  void check_gradients(const Graph& graph, bool has_head, const Weights& weights, const Tensor& input) {
    std::vector<Tensor> cotangents;
    for (const Graph::Output& output : graph.outputs()) {
      cotangents.push_back(Tensor::zeros({DType::kF32, graph.value(output.value).type.shape}));
    }
    for (const auto& [name, file] : at(meta_, "cotangents").items()) {
      cotangents[output_index(graph, has_head, name)] = read(file);
    }
    std::map<std::string, Tensor, std::less<>> got, want;
    const TorchGradients gradients = options_.torch->differentiate(graph, weights, {&input, 1}, cotangents);
    for (const auto& [name, gradient] : gradients.parameters) {
      got.emplace(name, gradient);
      want.emplace(name, Tensor::zeros(gradient.type()));  // unless the file says otherwise
    }
    got.emplace("x", gradients.inputs[0]);
    for (const auto& [name, file] : at(meta_, "gradients").items()) {
      if (name != "parameters") {
        want.insert_or_assign(name, read(file));
        continue;
      }
      for (const auto& [parameter, gradient] : read_checkpoint(folder_ / file.get<std::string>(), {}).tensors) {
        want.insert_or_assign(parameter, gradient);
      }
    }
    compare_gradients("", got, want, at(meta_, "tolerance_grad_f32").get<double>());
  }

  void compare_gradients(std::string_view prefix, const std::map<std::string, Tensor, std::less<>>& got,
                         const std::map<std::string, Tensor, std::less<>>& want, double tolerance) {
    double largest = 0;
    for (const auto& [name, gradient] : want) largest = std::max(largest, largest_of(gradient));
    const double floor = meta_.contains("grad_metric") ? kGradientFloor * largest : 1e-6;
    for (const auto& [name, gradient] : want) {
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
      check(label, relative_error(run_graph(graph, weights, k)[0], read(files[file]), name),
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
