#include "peer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "api/model_data.h"
#include "core/threads.h"
#include "onnx/export.h"

namespace weft::cli {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kOnnxRuntime = "onnxruntime";
const std::string kNoNode = "node, which runs it, is not in the PATH; install the package nodejs";

// $WEFT_PEERS, or where peers lie beside the command.
fs::path find_script(const std::string& name) {
  std::vector<fs::path> folders;
  if (const char* variable = std::getenv("WEFT_PEERS"); variable != nullptr && *variable != '\0') {
    folders.emplace_back(variable);
  } else {
    folders = folders_of_weft("peers", "tools/peers");
  }
  std::string looked;
  for (const fs::path& folder : folders) {
    std::error_code error;
    if (const fs::path path = folder / (name + ".mjs"); fs::exists(path, error)) return path;
    looked += (looked.empty() ? "" : ", ") + folder.string();
  }
  throw IoError(fmt::format("{}: there is no {}.mjs in {}; name its folder in WEFT_PEERS", name, name, looked));
}

// A file in memory that goes with the last process that has it open; its name is good for those.
std::string write_memory_file(const std::string& bytes) {
  const int fd = memfd_create("weft-peer-model", 0);
  if (fd < 0) throw IoError(fmt::format("cannot make a file in memory: {}", std::strerror(errno)));
  for (std::size_t written = 0; written < bytes.size();) {
    const ssize_t count = write(fd, bytes.data() + written, bytes.size() - written);
    if (count < 0) throw IoError(fmt::format("cannot write a file in memory: {}", std::strerror(errno)));
    written += static_cast<std::size_t>(count);
  }
  return fmt::format("/proc/self/fd/{}", fd);
}

}  // namespace

Peer::Peer(const std::string& what, bool spinning) : spinning_(spinning) {
  const std::size_t colon = what.find(':');
  name_ = what.substr(0, colon);
  model_ = colon == std::string::npos ? std::string(kModel) : what.substr(colon + 1);
  if (name_ != kOnnxRuntime) fail_usage("--vs must be {0} or {0}:MODEL, got {1}", kOnnxRuntime, what);
  require_onnx_export();
  (void)is_file(model_);  // throws for what is neither file nor preset
  script_ = find_script(name_);
  BenchChild asked(name_, [&](const BenchChild::Pipe& pipe) { become(pipe, {"node", script_, "--version"}, kNoNode); });
  version_ = asked.answer().value("version", "");
}

BenchChild Peer::child(const BenchCase& c) const {
  return {fmt::format("{}: {}", name_, c.str()), [&](const BenchChild::Pipe& pipe) {
            // All of this is gone when the child becomes another program: its peak memory is its own.
            const int threads = Workers(c.threads).count();
            auto [model, shape, graph, facts] = bench_graph(c);
            facts.threads = threads;
            OnnxOptions options;
            if (model.classes() > 0) options.outputs = {"logits"};
            const std::string file = write_memory_file(export_onnx(*graph, model.data().weights, options));
            Json known = facts.to_json();
            known["shape"] = shape.extents();
            become(pipe, {"node", script_, file, std::to_string(threads), spinning_ ? "1" : "0", dump(known)}, kNoNode);
          }};
}

}  // namespace weft::cli
