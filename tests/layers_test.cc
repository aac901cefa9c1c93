// Who may see whom. Reads every #include of the headers, the library and the command.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// A room under src/ and the rooms that it may include beside itself and the public headers.
const std::map<std::string, std::set<std::string>, std::less<>> kArrows = {
    {"core", {}},
    {"graph", {"core"}},
    {"kernel", {"core"}},
    {"ops", {"core", "graph", "kernel"}},
    {"models", {"core", "graph", "ops"}},
    {"cpu", {"core", "graph", "kernel", "ops"}},
    {"io", {"core"}},
    {"onnx", {"core", "graph", "ops"}},
    {"torch", {"core", "graph", "kernel", "ops"}},
    {"image", {"core"}},
    {"data", {"core", "io", "image"}},
    {"text", {"core", "io"}},
    {"api", {"core", "graph", "kernel", "ops", "models", "cpu", "io", "image", "text"}},
    {"train", {"core", "graph", "kernel", "ops", "models", "cpu", "io", "image", "text", "api", "data", "torch"}},
    {"connect", {"core", "graph", "ops", "cpu", "torch"}},
    {"verify", {"core", "graph", "kernel", "ops", "models", "cpu", "io", "image", "api", "torch"}},
};

// How the includes of a library begin, and how the paths begin that may have them. Tests may have all.
struct Fenced {
  std::string_view include;
  std::string_view home;
  bool angled = false;  // only as <…>: "torch/…" is a room of weft's
};
constexpr Fenced kFenced[] = {
    {"vips/", "src/image/"},
    {"glib", "src/text/unicode.cc"},
    {"minizip/", "src/io/"},
    {"zlib.h", "src/io/gzip"},
    {"dnnl", "src/kernel/onednn"},
    {"omp.h", "src/kernel/onednn"},
    {"onnx/onnx", "src/onnx/model_writer.cc"},
    {"onnx/checker", "src/onnx/model_writer.cc"},
    {"onnx/defs", "src/onnx/model_writer.cc"},
    {"google/", "src/onnx/model_writer.cc"},
    {"torch/", "src/torch/", true},
    {"ATen/", "src/torch/"},
    {"c10/", "src/torch/"},
    {"caffe2/", "src/torch/"},
    {"tbb/", "src/core/threads.cc"},
    {"nlohmann/", "src/core/json.h"},
    {"hwy/", "src/"},
    {"CLI/", "tools/"},
    {"gtest/", "tests/"},
    {"benchmark/", "tests/"},
};

bool is_test(std::string_view path) {
  return path.ends_with("_test.cc") || path.ends_with("_bench.cc") || path.find("/testing/") != path.npos;
}

std::string_view first_folder(std::string_view path) { return path.substr(0, path.find('/')); }

// The room of a file: "core" …, "tools", or "public" for include/weft.
std::string room_of(std::string_view path) {
  const std::string_view top = first_folder(path);
  if (top == "include") return "public";
  if (top == "src") return std::string(first_folder(path.substr(4)));
  return std::string(top);
}

// Why `path` may not include this; empty when it may.
std::string objection(std::string_view path, std::string_view include, bool quoted) {
  if (is_test(path)) return "";
  const auto* const library = std::find_if(std::begin(kFenced), std::end(kFenced), [&](const Fenced& fenced) {
    return include.starts_with(fenced.include) && !(fenced.angled && quoted);
  });
  const bool fenced = library != std::end(kFenced);
  if (fenced && !path.starts_with(library->home)) return "only " + std::string(library->home) + " sees this library";
  if (include.find("testing/") != include.npos || include.starts_with("tests/")) return "only tests see test code";
  const std::string from = room_of(path);
  const std::string to(first_folder(include));
  if (from == "public") {
    const bool standard = !quoted && include.find_first_of("./") == include.npos;
    return standard || to == "weft" ? "" : "the public headers see themselves and the standard library";
  }
  if (to == "weft" || fenced) return "";
  if (kArrows.contains(to)) {
    return from == "tools" || from == to || kArrows.at(from).contains(to) ? "" : from + " does not see " + to;
  }
  const bool beside = quoted && from == "tools" && include.find('/') == include.npos;
  return !quoted || beside ? "" : "no such room";
}

std::vector<std::string> violations(std::string_view path, const std::string& text) {
  static const std::regex kInclude(R"(^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">])", std::regex::multiline);
  std::vector<std::string> found;
  for (std::sregex_iterator match(text.begin(), text.end(), kInclude), end; match != end; ++match) {
    const std::string include = (*match)[2].str();
    const std::string why = objection(path, include, (*match)[1] == "\"");
    if (!why.empty()) found.push_back(std::string(path) + " includes " + include + ": " + why);
  }
  return found;
}

TEST(Layers, EveryIncludeFollowsTheArrows) {
  const fs::path root = WEFT_SOURCE_DIR;
  std::map<std::string, int> files;
  for (const char* top : {"include", "src", "tools"}) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string path = entry.path().lexically_relative(root).generic_string();
      if (!path.ends_with(".h") && !path.ends_with(".cc")) continue;
      ++files[room_of(path)];
      std::ostringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      for (const std::string& violation : violations(path, text.str())) ADD_FAILURE() << violation;
    }
  }
  for (const auto& [room, count] : files) {
    EXPECT_TRUE(room == "public" || room == "tools" || kArrows.contains(room)) << "no arrows for the room " << room;
  }
  EXPECT_GT(files["public"], 0);
  EXPECT_GT(files["core"], 0);
  EXPECT_GT(files["tools"], 0);
}

TEST(Layers, ForbiddenIncludesAreSeen) {
  EXPECT_EQ(violations("src/core/tensor.cc", "#include <vector>\n#include \"graph/graph.h\"\n"),
            std::vector<std::string>{"src/core/tensor.cc includes graph/graph.h: core does not see graph"});
  const std::pair<const char*, const char*> kForbidden[] = {
      {"src/ops/mean/mean.cc", "#include \"models/config.h\""},
      {"src/models/config.h", "#include \"io/npy.h\""},
      {"src/io/npy.cc", "#include \"image/resize.h\""},
      {"src/data/loader.cc", "#include \"graph/operation.h\""},
      {"src/image/decode.cc", "#include \"data/dataset.h\""},
      {"src/text/sampler.cc", "#include \"data/dataset.h\""},
      {"src/text/bpe.cc", "#include <glib.h>"},
      {"src/kernel/kernel.h", "  #  include \"ops/ops.h\""},
      {"src/cpu/plan.cc", "#include \"api/model_data.h\""},
      {"src/ops/mean/mean.cc", "#include \"ops/testing/op_test.h\""},
      {"src/ops/mean/mean.cc", "#include \"nowhere/mean.h\""},
      {"src/core/tensor.cc", "#include <tbb/parallel_for.h>"},
      {"src/ops/linear/linear_cpu.cc", "#include <dnnl.hpp>"},
      {"src/onnx/export.cc", "#include <onnx/onnx_pb.h>"},
      {"src/onnx/export.cc", "#include \"io/output_file.h\""},
      {"src/onnx/model_writer.cc", "#include \"cpu/plan.h\""},
      {"tools/weft/export.cc", "#include <google/protobuf/message.h>"},
      {"src/verify/verify.cc", "#include <torch/torch.h>"},
      {"src/verify/verify.cc", "#include <ATen/ATen.h>"},
      {"src/ops/bi_wkv/bi_wkv.cc", "#include <c10/core/Scalar.h>"},
      {"src/ops/bi_wkv/bi_wkv.cc", "#include \"torch/engine.h\""},
      {"src/torch/executor.cc", "#include \"cpu/plan.h\""},
      {"tools/weft/verify.cc", "#include <torch/script.h>"},
      {"src/io/npy.cc", "#include <vips/vips.h>"},
      {"src/image/decode.cc", "#include <minizip/unzip.h>"},
      {"src/data/idx.cc", "#include <zlib.h>"},
      {"src/api/model.cc", "#include <CLI/CLI.hpp>"},
      {"tools/weft/main.cc", "#include <gtest/gtest.h>"},
      {"include/weft/tensor.h", "#include <fmt/format.h>"},
      {"include/weft/tensor.h", "#include \"core/format.h\""},
  };
  for (const auto& [path, line] : kForbidden) EXPECT_EQ(violations(path, line).size(), 1U) << path << ": " << line;
}

TEST(Layers, AllowedIncludesPass) {
  const std::pair<const char*, const char*> kAllowed[] = {
      {"src/models/vision_rwkv/vision_rwkv.cc", "#include \"ops/ops.h\""},
      {"src/models/vision_rwkv/vision_rwkv_test.cc", "#include \"api/model_data.h\""},
      {"src/core/threads.cc", "#include <tbb/parallel_for.h>"},
      {"src/kernel/onednn.cc", "#include <dnnl.hpp>"},
      {"src/ops/bi_wkv/bi_wkv_cpu.cc", "#include \"hwy/foreach_target.h\""},
      {"src/onnx/model_writer.cc", "#include <onnx/onnx_pb.h>"},
      {"tools/weft/export.cc", "#include \"onnx/export.h\""},
      {"src/torch/executor.h", "#include <torch/torch.h>"},
      {"src/torch/executor.cc", "#include \"torch/executor.h\""},
      {"src/verify/verify.h", "#include \"torch/engine.h\""},
      {"tools/weft/main.cc", "#include \"common.h\""},
      {"include/weft/tensor.h", "#include \"weft/api.h\""},
      {"include/weft/tensor.h", "// #include \"core/format.h\""},
  };
  for (const auto& [path, line] : kAllowed) EXPECT_TRUE(violations(path, line).empty()) << path << ": " << line;
}

}  // namespace
}  // namespace weft
