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

double relative_error(const Tensor& got, const Tensor& want, std::string_view name) {
  require<ShapeError>(got.shape() == want.shape(), name, "has shape {}, the reference {}", got.shape(), want.shape());
  const Tensor got64 = got.to(DType::kF64);
  const Tensor want64 = want.to(DType::kF64);
  double worst = 0;
  double largest = 0;
  for (std::size_t i = 0; i < got64.data<double>().size(); ++i) {
    const double difference = std::abs(got64.data<double>()[i] - want64.data<double>()[i]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, difference);
    largest = std::max(largest, std::abs(want64.data<double>()[i]));
  }
  return worst / (largest + 1e-6);
}

class CaseRunner {
 public:
  CaseRunner(path folder, const VerifyOptions& options)
      : folder_(std::move(folder)), place_(folder_.string()), options_(options), workers_(options.threads) {
    const FileBytes file = map_file(folder_ / "meta.json");
    meta_ = parse_json({reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()}, file.name);
    require<IoError>(meta_.is_object(), place_, "meta.json must be an object");
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

  void check(std::string name, double error, double tolerance) {
    checks_.push_back({std::move(name), error, tolerance});
  }

  std::vector<Tensor> run_graph(const Graph& graph, const Weights& weights, const Tensor& input) {
    if (options_.engine == Engine::kReference) return evaluate_reference(graph, weights, {&input, 1});
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
    std::vector<Tensor> outputs = run_graph(*graph, data.weights, input);
    const bool has_head = data.architecture->classes() > 0;
    if (has_head) {  // build_graph puts maps first, the logits last
      outputs.insert(outputs.begin(), outputs.back());
    }
    for (const auto& [name, output] : at(meta_, "outputs").items()) {
      std::size_t index = outputs.size();
      if (name.starts_with('y')) {
        const char* end = name.data() + name.size();
        if (std::from_chars(name.data() + 1, end, index).ptr != end) index = outputs.size();
      }
      require<IoError>(index < layers.size() + (has_head ? 1 : 0), place_,
                       "output {} is none of the model's {} outputs", printable(name, 40),
                       layers.size() + (has_head ? 1 : 0));
      check(name, relative_error(outputs[index], read(at(output, "file")), name), tolerance);
    }
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
    std::vector<Tensor> in;
    for (const char* name : {"k", "v", "w", "u"}) {
      in.push_back(read(at(files, name)));
      if (options_.engine == Engine::kCpu) in.back() = in.back().to(DType::kF32);
    }
    const auto name = at(c, "name").get<std::string>();
    const double tolerance = at(c, "tolerance_f32").get<double>();
    const auto compare = [&](const char* file, Wkv form) {
      if (!files.contains(file)) return;
      Graph graph("bi_wkv");
      Weights weights;
      std::vector<Value> values = {graph.input("k", in[0].type())};
      for (std::size_t i = 1; i < in.size(); ++i) {
        values.push_back(graph.constant(in[i]));
      }
      graph.output("y", bi_wkv(values[0], values[1], values[2], values[3], form));
      const double error = relative_error(run_graph(graph, weights, in[0])[0], read(files[file]), name);
      check(fmt::format("{} (wkv = {})", name, name_of(form)), error, tolerance);
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
