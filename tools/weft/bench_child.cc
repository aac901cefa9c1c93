#include "bench_child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "core/format.h"

namespace weft::cli {
namespace {

[[noreturn]] void live(const BenchChild::Pipe& pipe, const std::function<void(const BenchChild::Pipe&)>& life) {
  try {
    life(pipe);
  } catch (const std::bad_alloc&) {
    say(pipe.to, {{"error", "out of memory"}});
  } catch (const std::exception& error) {
    say(pipe.to, {{"error", error.what()}});
  }
  _exit(0);  // the parent's buffers and handlers are the parent's
}

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw Error(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  return ends;
}

// The next line without its end; nothing when there is none.
std::optional<std::string> read_line(std::FILE* from) {
  std::string line;
  int c = std::fgetc(from);
  if (c == EOF) return std::nullopt;
  for (; c != EOF && c != '\n'; c = std::fgetc(from)) line += static_cast<char>(c);
  return line;
}

std::string describe_end(int status) {
  if (!WIFSIGNALED(status)) return "the process ended early";
  const int signal = WTERMSIG(status);
  const bool killed = signal == SIGKILL || signal == SIGTERM;
  return fmt::format("ended by signal {} ({}){}", signal, strsignal(signal), killed ? "; out of memory?" : "");
}

}  // namespace

BenchChild::BenchChild(std::string name, const std::function<void(const Pipe&)>& life) : name_(std::move(name)) {
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
    live({.from = fdopen(down[0], "r"), .to = fdopen(up[1], "w")}, life);
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
  const std::optional<std::string> line = read_line(from_.get());
  if (!line) {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    throw Error(fmt::format("{}: {}", name_, describe_end(status)));
  }
  Json json = Json::parse(*line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw Error(fmt::format("{}: expected JSON, got {}", name_, printable(*line)));
  if (json.contains("error")) {
    const Json& error = json["error"];
    throw Error(fmt::format("{}: {}", name_, error.is_string() ? error.get<std::string>() : dump(error)));
  }
  return json;
}

double BenchChild::ask(const std::string& request, const std::string& name) {
  std::fputs((request + "\n").c_str(), to_.get());
  std::fflush(to_.get());
  const Json json = answer();
  const auto number = json.find(name);
  if (number == json.end() || !number->is_number()) {
    throw Error(fmt::format("{}: expected a number of {}, got {}", name_, name, printable(dump(json))));
  }
  return number->get<double>();
}

void say(std::FILE* to, const Json& json) {
  const std::string line = dump(json) + "\n";
  std::fputs(line.c_str(), to);
  std::fflush(to);
}

void serve_requests(const BenchChild::Pipe& pipe, const std::function<Json(const std::string&)>& serve) {
  while (const std::optional<std::string> request = read_line(pipe.from)) say(pipe.to, serve(*request));
}

void become(const BenchChild::Pipe& pipe, std::vector<std::string> command, const std::string& missing) {
  dup2(fileno(pipe.from), STDIN_FILENO);
  dup2(fileno(pipe.to), STDOUT_FILENO);
  const int errors = dup(STDERR_FILENO);
  if (const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC); nowhere >= 0) dup2(nowhere, STDERR_FILENO);
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  const int error = errno;
  dup2(errors, STDERR_FILENO);
  throw Error(error == ENOENT ? missing : fmt::format("cannot run {}: {}", command[0], std::strerror(error)));
}

}  // namespace weft::cli
