#include "bench_subjects.h"

#include <chrono>
#include <fstream>
#include <random>

#include "api/model_data.h"
#include "core/threads.h"
#include "kernel/onednn_peak.h"

namespace weft::cli {
namespace {

// Peak resident set of this process, from the kernel.
std::int64_t own_peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::int64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return 1024 * kib;
  }
  return 0;
}

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

void serve_model(const BenchCase& c, const BenchChild::Pipe& pipe) {
  auto [model, shape, graph, facts] = bench_graph(c);
  graph.reset();
  const Session session(model, {.threads = c.threads, .dtype = c.dtype});
  facts.threads = session.threads();
  facts.working_bytes = session.working_bytes(shape);
  const Tensor input = random_input(shape);
  run_once(session, input);
  say(pipe.to, facts.to_json());
  serve_requests(pipe, [&](const std::string& request) -> Json {
    if (request == "memory") return {{"peak", own_peak_bytes()}};
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
  Model model = load_or_create(c.model, c.load);
  const Architecture& architecture = *model.data().architecture;
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
