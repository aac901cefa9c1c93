#include "io/testing/hostile_files.h"

#include <fmt/format.h>
#include <minizip/zip.h>

#include <limits>

#include "io/testing/files.h"
#include "io/testing/torch_writer.h"

namespace weft::testing {
namespace {

namespace fs = std::filesystem;
using namespace pickled;
using Kind = HostileFile::Kind;

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

class Collection {
 public:
  explicit Collection(fs::path directory) : directory_(std::move(directory)) {}

  void add(Kind kind, const std::string& name, const std::string& data, std::string reason) {
    write_text(directory_ / name, data);
    files_.push_back({kind, directory_ / name, std::move(reason)});
  }
  void weights(const std::string& name, const std::string& data, std::string reason) {
    add(Kind::kWeights, name, data, std::move(reason));
  }
  // A checkpoint of one state_dict with 16 bytes of storage.
  void view(const std::string& name, View view, std::string reason) {
    if (view.elements == 0) view.elements = 4;
    weights(name + ".pth", torch_file(dict({{"w", tensor(view)}}), {std::string(16, '\1')}), std::move(reason));
  }
  void plain_data(const std::string& name, const std::string& value, std::string reason) {
    const std::string good = tensor({.elements = 4, .sizes = {4}, .strides = {1}});
    weights(name + ".pth", torch_file(dict({{"w", good}, {"meta", value}}), {std::string(16, '\1')}),
            std::move(reason));
  }

  const fs::path& directory() const { return directory_; }
  std::vector<HostileFile> take() { return std::move(files_); }

 private:
  fs::path directory_;
  std::vector<HostileFile> files_;
};

void add_truncated(Collection& out) {
  const std::string whole = read_text(WEFT_SOURCE_DIR "/tests/golden/vrwkv-plain/weights.pth");
  for (std::size_t part = 0; part < 16; ++part) {
    out.weights(fmt::format("truncated-{}-of-16.pth", part), whole.substr(0, whole.size() * part / 16),
                part == 0 ? "the file is empty" : "damaged zip archive");
  }
  // torch.save ends an archive with a Zip64 record and the ordinary one; whoever has the former needs not the latter.
  out.weights("truncated-by-60.pth", whole.substr(0, whole.size() - 60), "damaged zip archive");
  const std::string plain =
      torch_file(dict({{"w", tensor({.elements = 4, .sizes = {4}, .strides = {1}})}}), {std::string(16, '\1')});
  out.weights("truncated-by-one.pth", plain.substr(0, plain.size() - 1), "damaged zip archive");
}

void add_commands(Collection& out) {
  const std::string wants = "pickle wants to call ";
  // Were one of these run, the marker would exist afterwards.
  const std::string command = fmt::format("touch '{}'", (out.directory() / "code-was-run").string());
  const auto state = [](const std::string& value) { return torch_file(dict({{"w", value}})); };
  out.weights("os-system.pth", state(call(global("os", "system"), {text(command)})), wants + "os.system");
  out.weights("posix-system.pth", state(call(global("posix", "system"), {text(command)})), wants + "posix.system");
  out.weights("eval.pth",
              state(call(global("builtins", "eval"), {text("__import__('os').system(\"" + command + "\")")})),
              wants + "builtins.eval");
  out.weights("inst.pth", state("(" + text(command) + "ios\nsystem\n"), wants + "os.system");
  out.weights("stack-global.pth", state(text("os") + text("system") + "\x93" + text(command) + "\x85R"),
              wants + "os.system");
  out.weights("popped.pth", state(call(global("os", "system"), {text(command)}) + "0N"), wants + "os.system");
  out.weights("getattr.pth", state(call(global("builtins", "getattr"), {global("torch", "Tensor"), text("x")})),
              wants + "builtins.getattr");
  out.weights("from-type.pth",
              state(call(global("torch._tensor", "_rebuild_from_type_v2"),
                         {global("torch", "Size"), global("torch", "Tensor"), tuple({}), "}"})),
              "is asked to call torch.Size");
  out.weights("whole-model.pth", state(global("timm.models.vision_transformer", "VisionTransformer") + ")\x81"),
              "save model.state_dict() instead");
  out.weights("extension.pth", state("\x82\x01"), "unknown opcode");
  out.weights("bare-pickle.pkl", document(call(global("os", "system"), {text(command)})), "a bare pickle");
}

void add_views(Collection& out) {
  out.view("negative-size", {.sizes = {-4}, .strides = {1}}, "are absurd");
  out.view("negative-stride", {.offset = 3, .sizes = {4}, .strides = {-1}}, "reaches beyond its storage");
  out.view("negative-offset", {.offset = -1, .sizes = {4}, .strides = {1}}, "reaches beyond its storage");
  out.view("offset-too-far", {.offset = 1, .sizes = {4}, .strides = {1}}, "reaches beyond its storage");
  out.view("offset-overflows", {.offset = kHuge, .sizes = {4}, .strides = {1}}, "reaches beyond its storage");
  out.view("stride-too-far", {.sizes = {2, 2}, .strides = {3, 1}}, "reaches beyond its storage");
  out.view("stride-overflows", {.sizes = {3}, .strides = {kHuge}}, "reaches beyond its storage");
  out.view("sizes-overflow", {.sizes = {kHuge, kHuge}, .strides = {0, 0}}, "are absurd");
  out.view("many-elements", {.sizes = {kHuge}, .strides = {1}}, "reaches beyond its storage");
  out.view("expanded", {.sizes = {1 << 20, 1 << 20}, .strides = {0, 0}}, "more memory than the file has reason to");
  out.view("storage-lies", {.elements = 1 << 20, .sizes = {1 << 20}, .strides = {1}}, "the file has 16 bytes");
  out.view("storage-overflows", {.elements = kHuge, .sizes = {1 << 20}, .strides = {1}}, "the file has 16 bytes");
  out.view("storage-negative", {.elements = -1, .sizes = {4}, .strides = {1}}, "not that of a torch storage");
  out.view("storage-missing", {.key = "9", .sizes = {4}, .strides = {1}}, "is missing");
  out.view("storage-elsewhere", {.key = "../../etc/passwd", .sizes = {4}, .strides = {1}}, "is missing");
  out.view("complex", {.type = "ComplexFloatStorage", .sizes = {2}, .strides = {1}}, "expected dense tensors");
  out.view("many-axes", {.sizes = std::vector<std::int64_t>(1000, 1), .strides = std::vector<std::int64_t>(1000, 1)},
           "1000 axes");
  // Each of a thousand views is affordable, all of them are not.
  std::vector<std::pair<std::string, std::string>> views;
  for (int i = 0; i < 1000; ++i) {
    views.emplace_back(fmt::format("w{}", i), tensor({.elements = 4, .sizes = {1 << 20}, .strides = {0}}));
  }
  out.weights("thousand-views.pth", torch_file(dict(views), {std::string(16, '\1')}),
              "more memory than the file has reason to");
}

void add_plain_data(Collection& out) {
  // Each level holds the level below ten times over: 10^60 values in a kilobyte.
  std::string laughs = text("ha") + "q\x01";
  for (int level = 0; level < 60; ++level) {
    laughs += "0](";
    for (int i = 0; i < 10; ++i) laughs += "h\x01";
    laughs += "eq\x01";
  }
  out.plain_data("billion-laughs", laughs, "unfolds to far more");
  std::string echo = text(std::string(1 << 20, 'x')) + "q\x01" + "0](";
  for (int i = 0; i < 100'000; ++i) echo += "h\x01";
  out.plain_data("repeated-text", echo + "e", "unfolds to far more");
  out.plain_data("deep-lists", std::string(1'000'000, ']') + std::string(999'999, 'a'), "nested deeper");
  std::string tuples = "N";
  tuples.append(1'000'000, '\x85');
  out.plain_data("deep-tuples", tuples, "nested deeper");
  out.plain_data("own-item",
                 "]q\x01h\x01"
                 "a",
                 "nested deeper");
  out.plain_data("many-marks", std::string(4'000'000, '('), "");
  out.plain_data("endless", std::string(9'000'000, '}'), "more than 8388608 steps");
  out.plain_data("huge-text", "X\xff\xff\xff\xff", "cut short");
}

void add_archives(Collection& out) {
  const std::string pickle = document(dict({{"w", tensor({.elements = 4, .sizes = {4}, .strides = {1}})}}));
  const std::string data(16, '\1');
  const ZipEntry main = {.name = "a/data.pkl", .data = pickle};
  const auto with = [&](ZipEntry entry) { return zip({main, std::move(entry)}); };
  const ZipEntry sound = {.name = "a/data/0", .data = data};
  const auto changed = [&](auto change) {
    ZipEntry entry = sound;
    change(entry);
    return with(std::move(entry));
  };
  out.weights("compressed.pth", changed([](ZipEntry& e) { e.method = 8; }), "is compressed");
  out.weights("encrypted.pth", changed([](ZipEntry& e) { e.flags = 1; }), "is encrypted");
  out.weights("entry-too-long.pth", changed([](ZipEntry& e) { e.size = 0xFFFFFFF0U; }), "damaged zip archive");
  out.weights("entry-too-short.pth", changed([](ZipEntry& e) { e.size = 8; }), "the file has 8 bytes");
  out.weights("entry-twice.pth", zip({main, sound, sound}), "two entries");
  out.weights("entry-name-too-long.pth", changed([](ZipEntry& e) { e.name = std::string(5000, 'n'); }),
              "name has 5000");
  out.weights("no-pickle.pth", zip({sound}), "without data.pkl");
  out.weights("two-pickles.pth", zip({main, {.name = "b/data.pkl", .data = pickle}}), "several data.pkl");
  out.weights("torchscript.pt", with({.name = "a/constants.pkl", .data = pickle}), "TorchScript");
  out.weights("big-endian.pth", with({.name = "a/byteorder", .data = "big"}), "byte order \"big\"");
  out.weights("docx.pth", zip({{.name = "word/document.xml", .data = "<xml/>"}}), "without data.pkl");
  out.weights("not-a-dictionary.pth", torch_file(list({})), "something other than a dictionary");
  out.weights("before-1.6.pth", "\x80\x02\x8a\x0al\xfc\x9c" + std::string("F\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."),
              "before 1.6");
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  out.weights("before-0.2.pth", tar, "before 1.6");
  out.weights("text.pth", "these are no weights\n", "expected a PyTorch checkpoint or a safetensors file");
  out.weights("page.pth", "<!DOCTYPE html><html></html>", "a web page");
  out.weights("zeros.pth", std::string(4096, '\0'), "expected a PyTorch checkpoint or a safetensors file");

  // 64 MiB of zeros deflated a thousandfold, as a real archiver does it.
  const fs::path bomb = out.directory() / "zip-bomb.pth";
  const zipFile archive = zipOpen64(bomb.c_str(), APPEND_STATUS_CREATE);
  zipOpenNewFileInZip64(archive, "a/data.pkl", nullptr, nullptr, 0, nullptr, 0, nullptr, 8 /* deflate */, 9, 0);
  const std::string zeros(1 << 20, '\0');
  for (int i = 0; i < 64; ++i) zipWriteInFileInZip(archive, zeros.data(), static_cast<unsigned>(zeros.size()));
  zipCloseFileInZip(archive);
  zipClose(archive, nullptr);
  out.weights("zip-bomb.pth", read_text(bomb), "is compressed");
}

void add_safetensors(Collection& out) {
  const auto bytes16 = std::string(16, '\1');
  const auto add = [&](const std::string& name, const std::string& header, const std::string& data, std::string why) {
    out.weights(name + ".safetensors", safetensors(header, data), std::move(why));
  };
  const auto one = [](const std::string& shape, const std::string& offsets, const std::string& dtype = "F32") {
    return fmt::format(R"({{"w":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
  };
  const std::string good = one("[4]", "[0,16]");
  out.weights("header-huge.safetensors", std::string(7, '\xff') + "\x7f" + good, "expected a PyTorch checkpoint");
  out.weights("header-over-limit.safetensors", little_endian(100'000'001, 8) + good, "expected a PyTorch checkpoint");
  out.weights("header-over-file.safetensors", little_endian(99'999'999, 8) + good, "the file is cut short");
  add("header-no-json", "{]", "", "expected JSON");
  add("header-deep", "{\"w\":" + std::string(1'000'000, '['), "", "nested deeper");
  add("header-binary", "{\"\xff\xfe\":0}", "", "expected JSON");
  add("name-twice", good.substr(0, good.size() - 1) + "," + good.substr(1), bytes16, "the key \"w\" twice");
  add("cut-short", good, bytes16.substr(1), "the file is cut short");
  add("bytes-left-over", good, bytes16 + "x", "the tensors end at byte 16");
  add("overlap",
      R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
      bytes16, "overlaps another tensor's");
  add("gap",
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
      bytes16, "leaves a gap");
  add("starts-late", one("[2]", "[8,16]"), bytes16, "leaves a gap");
  add("backwards", one("[4]", "[16,0]"), bytes16, "its data goes from byte 16 to byte 0");
  add("shape-lies", one("[5]", "[0,16]"), bytes16, "is f32[5] but its data goes");
  add("shape-overflows", one("[4611686018427387904,4611686018427387904]", "[0,0]"), "", "but its data goes");
  add("shape-wraps-to-zero", one("[4294967296,4294967296]", "[0,0]"), "", "but its data goes");
  add("extent-negative", one("[-4]", "[0,16]"), bytes16, "non-negative integer");
  add("extent-fraction", one("[4.0]", "[0,16]"), bytes16, "non-negative integer");
  add("extent-beyond-64-bits", one("[18446744073709551615]", "[0,16]"), bytes16, "non-negative integer");
  add("offsets-beyond", one("[4]", "[9223372036854775791,9223372036854775807]"), bytes16, "leaves a gap");
  std::string axes = "1";
  for (int i = 0; i < 100; ++i) axes += ",1";
  add("many-axes", one("[" + axes + "]", "[0,4]"), bytes16.substr(0, 4), "101 axes");
  add("dtype-unknown", one("[4]", "[0,16]", "F8_E4M3"), bytes16, "elements of type F8_E4M3");
  add("entry-incomplete", R"({"w":{"dtype":"F32","shape":[4]}})", bytes16,
      "must have dtype, shape and two data_offsets");
  add("entry-no-object", R"({"w":1})", "", "must have dtype, shape and two data_offsets");
  add("metadata-no-text", R"({"__metadata__":{"a":1}})", "", "object of strings");
}

void add_arrays(Collection& out) {
  const auto array = [&](const std::string& name, const std::string& shape, std::string why) {
    out.add(Kind::kArray, name + ".npy",
            npy(fmt::format("{{'descr': '<f4', 'fortran_order': True, 'shape': {}, }}", shape), std::string(16, '\1')),
            std::move(why));
  };
  array("absurd-shape", "(1000000, 1000000)", "does not fit");
  array("overflowing-shape", "(4294967296, 4294967296, 4)", "does not fit");
  array("negative-shape", "(-4,)", "expected an extent");
  out.add(Kind::kArray, "objects.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "cos\nsystem\n"),
          "got '|O'");
  out.add(Kind::kArray, "header-over-file.npy", npy("{", "", 2).replace(8, 4, "\xff\xff\xff\x7f"),
          "header says it has");
  out.add(Kind::kArray, "empty.npy", "", "the file is empty");
}

void add_pictures(Collection& out) {
  // A header of 100,000 × 100,000 RGB pixels and no pixels; the checksum is right.
  const std::string header = std::string("IHDR") + std::string("\0\1\x86\xa0\0\1\x86\xa0\x08\2\0\0\0", 13);
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char c : header) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0);
  }
  std::string checksum;
  for (int shift = 24; shift >= 0; shift -= 8) checksum += static_cast<char>(~crc >> shift);
  const std::string magic = "\x89PNG\r\n\x1a\n";
  const std::string end = std::string("\0\0\0\0IEND\xae\x42\x60\x82", 12);
  out.add(Kind::kPicture, "huge.png", magic + std::string("\0\0\0\x0d", 4) + header + checksum + end, "");
  out.add(Kind::kPicture, "truncated.png", magic + std::string("\0\0\0\x0dIH", 6), "");
  out.add(Kind::kPicture, "truncated.jpg", "\xff\xd8\xff\xe0", "");
  out.add(Kind::kPicture, "empty.png", "", "");
}

}  // namespace

std::vector<HostileFile> write_hostile_files(const fs::path& directory) {
  Collection out(directory);
  add_truncated(out);
  add_commands(out);
  add_views(out);
  add_plain_data(out);
  add_archives(out);
  add_safetensors(out);
  add_arrays(out);
  add_pictures(out);
  return out.take();
}

}  // namespace weft::testing
