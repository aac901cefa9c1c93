#include "bench_subjects.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "api/memory_limit.h"
#include "api/model_data.h"
#include "core/process_memory.h"
#include "core/threads.h"
#include "cpu/plan.h"
#include "kernel/onednn_peak.h"

namespace weft::cli {
namespace {

Tensor random_input(const Shape& shape) {
  Tensor input(DType::kF32, shape);
  std::mt19937 random(1);  // NOLINT: the same picture every time
  std::normal_distribution<float> normal;
  for (float& value : input.mutable_data<float>()) value = normal(random);
  return input;
}

void run_once(const Session& session, const Tensor& input) {
  if (session.model().classes() > 0) {
    (void)session.logits(input);
  } else {
    (void)session.features(input);
  }
}

// What a run spends its threads' time on. The plan is one of its own, so that sessions need not measure themselves.
Json profile_of(const BenchCase& c) {
  constexpr int kRuns = 10;
  const auto [model, shape, graph, facts] = bench_graph(c);
  const Workers workers(c.threads);
  const Plan plan(*graph, model.data().weights, workers, std::make_shared<PackCache>(), c.dtype);
  Plan::Context context(plan);
  const Tensor input = random_input(shape);
  std::vector<Tensor> outputs;
  std::vector<std::byte*> out;
  for (const Plan::Port& port : plan.outputs()) out.push_back(outputs.emplace_back(port.type).mutable_raw());
  const std::byte* const in = input.raw();
  Plan::Profile profile(plan.steps().size());
  plan.run({&in, 1}, out, context, workers);
  for (int i = 0; i < kRuns; ++i) plan.run({&in, 1}, out, context, workers, &profile);

  struct Sum {
    std::string operation;
    int steps = 0;
    double ms = 0;
    std::int64_t macs = 0;
    std::int64_t bytes = 0;
  };
  std::vector<Sum> sums;
  for (std::size_t i = 0; i < plan.steps().size(); ++i) {
    const Plan::Step& step = plan.steps()[i];
    auto sum = std::ranges::find(sums, step.operation, &Sum::operation);
    if (sum == sums.end()) sum = sums.insert(sums.end(), Sum{.operation = step.operation});
    ++sum->steps;
    sum->ms += static_cast<double>(profile[i]) * 1e-6 / kRuns;
    sum->macs += step.macs;
    sum->bytes += step.bytes;
  }
  std::ranges::sort(sums, std::ranges::greater(), &Sum::ms);
  Json operations = Json::array();
  for (const auto& [operation, steps, ms, macs, bytes] : sums) {
    operations.push_back({{"operation", operation}, {"steps", steps}, {"ms", ms}, {"macs", macs}, {"bytes", bytes}});
  }
  return {{"operations", operations}};
}

void serve_model(const BenchCase& c, const BenchChild::Pipe& pipe) {
  auto [model, shape, graph, facts] = bench_graph(c);
  graph.reset();
  const Session session(model, {.threads = c.threads, .dtype = c.dtype, .max_memory = c.max_memory});
  facts.threads = session.threads();
  facts.working_bytes = session.working_bytes(shape);
  const TensorType type{DType::kF32, shape};
  require_memory(c.max_memory, facts.working_bytes + static_cast<std::int64_t>(type.bytes()),
                 fmt::format("working memory and input {}", type));
  const Tensor input = random_input(shape);
  run_once(session, input);
  say(pipe.to, facts.to_json());
  serve_requests(pipe, [&](const std::string& request) -> Json {
    if (request == "memory") return {{"peak", peak_resident_bytes()}};
    if (request == "profile") return profile_of(c);
    const auto start = std::chrono::steady_clock::now();
    run_once(session, input);
    return {{"seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()}};
  });
}

}  // namespace

std::string BenchCase::str() const { return fmt::format("{} at {}x{}", model, size.height, size.width); }

Json BenchFacts::to_json() const {
  return {{"macs", macs}, {"tokens", tokens}, {"threads", threads}, {"working_bytes", working_bytes}};
}

BenchFacts BenchFacts::from_json(const Json& json) {
  try {
    return {.macs = json.at("macs").get<std::int64_t>(),
            .tokens = json.at("tokens").get<std::int64_t>(),
            .threads = json.at("threads").get<int>(),
            .working_bytes = json.at("working_bytes").get<std::int64_t>()};
  } catch (const Json::exception&) {
    throw Error(fmt::format("a process that was started answered {}", printable(dump(json))));
  }
}

BenchGraph bench_graph(const BenchCase& c) {
  Model model = load_or_create(c.model, for_size(c.model, c.load, c.size));
  const PictureArchitecture& architecture = require_pictures(*model.data().architecture);
  Shape shape{c.batch, architecture.in_channels(), c.size.height, c.size.width};
  auto graph = build_graph(architecture, shape, std::array{architecture.depth() - 1});
  const Shape& map = graph->value(graph->outputs()[0].value).type.shape;
  const BenchFacts facts{.macs = graph->macs(), .tokens = map[2] * map[3]};
  return {std::move(model), std::move(shape), std::move(graph), facts};
}

BenchChild weft_child(const BenchCase& bench_case) {
  return {bench_case.str(), [&](const BenchChild::Pipe& pipe) { serve_model(bench_case, pipe); }};
}

BenchChild peak_child(DType dtype, int threads) {
  return {"the machine's peak", [=](const BenchChild::Pipe& pipe) {
            const onednn::MatrixPeak peak(dtype, Workers(threads).count());
            say(pipe.to, Json::object());
            serve_requests(pipe, [&](const std::string&) -> Json { return {{"rate", peak.measure()}}; });
          }};
}

}  // namespace weft::cli
