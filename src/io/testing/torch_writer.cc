#include "io/testing/torch_writer.h"

#include <fmt/format.h>

namespace weft::testing {

std::string little_endian(std::uint64_t value, std::size_t size) {
  std::string out;
  for (std::size_t i = 0; i < size; ++i, value >>= 8) out += static_cast<char>(value);
  return out;
}

namespace pickled {

std::string text(std::string_view value) { return "X" + little_endian(value.size(), 4) + std::string(value); }
std::string integer(std::int64_t value) { return "\x8a\x08" + little_endian(static_cast<std::uint64_t>(value), 8); }
std::string tuple(const Pieces& items) { return fmt::format("({}t", fmt::join(items, "")); }
std::string integers(const std::vector<std::int64_t>& values) {
  Pieces pieces;
  for (const std::int64_t value : values) pieces.push_back(integer(value));
  return tuple(pieces);
}
std::string list(const Pieces& items) { return fmt::format("]({}e", fmt::join(items, "")); }
std::string dict(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string out = "}(";
  for (const auto& [key, value] : entries) out += text(key) + value;
  return out + "u";
}
std::string global(std::string_view module, std::string_view name) { return fmt::format("c{}\n{}\n", module, name); }
std::string call(const std::string& callable, const Pieces& args) { return callable + tuple(args) + "R"; }
std::string storage(std::string_view type, std::string_view key, std::int64_t elements) {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), integer(elements)}) + "Q";
}
std::string tensor(const View& view) {
  return call(global("torch._utils", "_rebuild_tensor_v2"),
              {storage(view.type, view.key, view.elements), integer(view.offset), integers(view.sizes),
               integers(view.strides), "\x89", call(global("collections", "OrderedDict"), {})});
}
std::string document(const std::string& value, int protocol) {
  return "\x80" + std::string(1, static_cast<char>(protocol)) + value + ".";
}

}  // namespace pickled

std::string zip(const std::vector<ZipEntry>& entries) {
  std::string out, directory;
  for (const ZipEntry& entry : entries) {
    const std::size_t start = out.size();
    const std::uint64_t size = entry.size.value_or(static_cast<std::uint32_t>(entry.data.size()));
    const std::size_t header = 30 + entry.name.size() + 4;
    const std::size_t padding = (entry.alignment - (start + header) % entry.alignment) % entry.alignment;
    // version, flags, method, time and date, checksum, sizes, length of the name
    const std::string common = little_endian(20, 2) + little_endian(static_cast<unsigned>(entry.flags), 2) +
                               little_endian(static_cast<unsigned>(entry.method), 2) + little_endian(0, 8) +
                               little_endian(size, 4) + little_endian(size, 4) + little_endian(entry.name.size(), 2);
    out += "PK\x03\x04" + common + little_endian(padding + 4, 2) + entry.name;
    out += "FB" + little_endian(padding, 2) + std::string(padding, 'Z') + entry.data;
    directory +=
        "PK\x01\x02" + little_endian(20, 2) + common + little_endian(0, 12) + little_endian(start, 4) + entry.name;
  }
  const std::size_t start = out.size();
  return out + directory + "PK\x05\x06" + little_endian(0, 4) + little_endian(entries.size(), 2) +
         little_endian(entries.size(), 2) + little_endian(directory.size(), 4) + little_endian(start, 4) +
         little_endian(0, 2);
}

std::string torch_file(const std::string& root, const std::vector<std::string>& storages) {
  std::vector<ZipEntry> entries = {{.name = "archive/data.pkl", .data = pickled::document(root)}};
  for (std::size_t i = 0; i < storages.size(); ++i) {
    entries.push_back({.name = fmt::format("archive/data/{}", i), .data = storages[i]});
  }
  entries.push_back({.name = "archive/version", .data = "3\n"});
  return zip(entries);
}

std::string safetensors(std::string_view header, std::string_view data) {
  return little_endian(header.size(), 8).append(header).append(data);
}

std::string npy(std::string_view header, std::string_view data, int version) {
  std::string out = "\x93NUMPY" + little_endian(static_cast<unsigned>(version), 2);  // and the minor version 0
  return out.append(little_endian(header.size(), version == 1 ? 2 : 4)).append(header).append(data);
}

}  // namespace weft::testing
