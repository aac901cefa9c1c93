#include "bench_child.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <memory>
#include <random>

#include "api/model_data.h"

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

void say(std::FILE* to, const Json& json) {
  const std::string line = dump(json) + "\n";
  std::fputs(line.c_str(), to);
  std::fflush(to);
}

// The child's life: warm up, then one run per 'r', its peak memory for 'm', until the pipe closes.
void serve(const BenchCase& c, std::FILE* from, std::FILE* to) {
  const Session session(load_or_create(c.model, c.load), {.threads = c.threads});
  const Architecture& architecture = *session.model().data().architecture;
  const Shape shape{c.batch, architecture.in_channels(), c.size.height, c.size.width};
  std::int64_t macs = 0;
  std::int64_t tokens = 0;
  {
    const auto graph = build_graph(architecture, shape, std::array{architecture.depth() - 1});
    const Shape& map = graph->value(graph->outputs()[0].value).type.shape;
    macs = graph->macs();
    tokens = map[2] * map[3];
  }
  const std::int64_t working = session.working_bytes(shape);
  const Tensor input = random_input(shape);
  run_once(session, input);
  say(to, {{"macs", macs}, {"tokens", tokens}, {"threads", session.threads()}, {"working_bytes", working}});
  for (int command = std::fgetc(from); command != EOF; command = std::fgetc(from)) {
    if (command == 'm') {
      say(to, {{"peak", own_peak_bytes()}});
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    run_once(session, input);
    say(to, {{"seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()}});
  }
}

[[noreturn]] void child_main(const BenchCase& bench_case, std::FILE* from, std::FILE* to) {
  try {
    serve(bench_case, from, to);
  } catch (const std::bad_alloc&) {
    say(to, {{"error", "out of memory"}});
  } catch (const std::exception& error) {
    say(to, {{"error", error.what()}});
  }
  _exit(0);  // the parent's buffers and handlers are the parent's
}

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) throw Error(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  return ends;
}

}  // namespace

BenchChild::BenchChild(const BenchCase& bench_case)
    : name_(fmt::format("{} at {}x{}", bench_case.model, bench_case.size.height, bench_case.size.width)) {
  const std::array<int, 2> down = make_pipe();
  const std::array<int, 2> up = make_pipe();
  std::fflush(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw Error(fmt::format("cannot start a process: {}", std::strerror(errno)));
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    close(down[1]);
    close(up[0]);
    child_main(bench_case, fdopen(down[0], "r"), fdopen(up[1], "w"));
  }
  close(down[0]);
  close(up[1]);
  to_.reset(fdopen(down[1], "w"));
  from_.reset(fdopen(up[0], "r"));
}

BenchChild::BenchChild(BenchChild&& other) noexcept
    : name_(std::move(other.name_)),
      pid_(std::exchange(other.pid_, -1)),
      to_(std::move(other.to_)),
      from_(std::move(other.from_)) {}

BenchChild::~BenchChild() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

Json BenchChild::answer() {
  std::string line;
  for (int c = std::fgetc(from_.get()); c != EOF && c != '\n'; c = std::fgetc(from_.get()))
    line += static_cast<char>(c);
  if (line.empty()) {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    const bool killed = WIFSIGNALED(status) && (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM);
    throw Error(WIFSIGNALED(status) ? fmt::format("{}: ended by signal {} ({}){}", name_, WTERMSIG(status),
                                                  strsignal(WTERMSIG(status)), killed ? "; out of memory?" : "")
                                    : fmt::format("{}: the process ended early", name_));
  }
  Json json = Json::parse(line);
  if (json.contains("error")) throw Error(fmt::format("{}: {}", name_, json["error"].get<std::string>()));
  return json;
}

Json BenchChild::ask(const char* command) {
  std::fputs(command, to_.get());
  std::fflush(to_.get());
  return answer();
}

BenchFacts BenchChild::warm_up() {
  const Json facts = answer();
  return {.macs = facts["macs"].get<std::int64_t>(),
          .tokens = facts["tokens"].get<std::int64_t>(),
          .threads = facts["threads"].get<int>(),
          .working_bytes = facts["working_bytes"].get<std::int64_t>()};
}

double BenchChild::time_once() { return ask("r")["seconds"].get<double>(); }
std::int64_t BenchChild::peak_resident_bytes() { return ask("m")["peak"].get<std::int64_t>(); }

}  // namespace weft::cli
