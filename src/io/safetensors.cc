#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string_view>

#include "core/format.h"
#include "io/json.h"
#include "io/output_file.h"

namespace weft {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr std::size_t kMaxRank = 64;
constexpr std::string_view kMetadata = "__metadata__";

constexpr std::array<std::pair<std::string_view, DType>, 10> kElements = {{{"F64", DType::kF64},
                                                                           {"F32", DType::kF32},
                                                                           {"F16", DType::kF16},
                                                                           {"BF16", DType::kBF16},
                                                                           {"I64", DType::kI64},
                                                                           {"I32", DType::kI32},
                                                                           {"I16", DType::kI16},
                                                                           {"I8", DType::kI8},
                                                                           {"U8", DType::kU8},
                                                                           {"BOOL", DType::kBool}}};

std::uint64_t header_length(std::span<const std::byte> bytes) {
  std::uint64_t length = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) length = length << 8 | static_cast<std::uint64_t>(bytes[i]);
  return length;
}

struct Entry {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> extents;
  std::uint64_t begin;
  std::uint64_t end;
};

std::uint64_t natural(const Json& json, std::string_view what, std::string_view place) {
  require<IoError>(json.is_number_unsigned() && json.get<std::uint64_t>() <= INT64_MAX, place,
                   "{} must be a non-negative integer, got {}", what, printable(json.dump(), 40));
  return json.get<std::uint64_t>();
}

// One tensor of the header: {"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}
Entry parse_entry(const std::string& name, const Json& json, std::string_view place) {
  const std::string shown = printable(name);
  const bool complete = json.is_object() && json.size() == 3 && json.contains("dtype") && json["dtype"].is_string() &&
                        json.contains("shape") && json["shape"].is_array() && json.contains("data_offsets") &&
                        json["data_offsets"].is_array() && json["data_offsets"].size() == 2;
  require<IoError>(complete, place, "the header's entry {} must have dtype, shape and two data_offsets", shown);
  const auto& code = json["dtype"].get_ref<const std::string&>();
  const auto* const element = std::ranges::find(kElements, code, &std::pair<std::string_view, DType>::first);
  require<IoError>(element != kElements.end(), place,
                   "{} has elements of type {}: expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL", shown,
                   printable(code, 20));
  require<IoError>(json["shape"].size() <= kMaxRank, place, "{} has {} axes: expected at most {}", shown,
                   json["shape"].size(), kMaxRank);
  Entry entry{.name = name, .dtype = element->second};
  for (const Json& extent : json["shape"]) {
    entry.extents.push_back(static_cast<std::int64_t>(natural(extent, "an extent of " + shown, place)));
  }
  entry.begin = natural(json["data_offsets"][0], "a data offset of " + shown, place);
  entry.end = natural(json["data_offsets"][1], "a data offset of " + shown, place);

  auto bytes = static_cast<std::int64_t>(size_of(entry.dtype));
  bool overflow = false;
  const bool empty = std::ranges::find(entry.extents, 0) != entry.extents.end();
  for (const std::int64_t extent : entry.extents) {
    overflow = overflow || (!empty && __builtin_mul_overflow(bytes, extent, &bytes));
  }
  const bool matches = !overflow && entry.begin <= entry.end &&
                       entry.end - entry.begin == (empty ? 0 : static_cast<std::uint64_t>(bytes));
  require<IoError>(matches, place, "{} is {}[{}] but its data goes from byte {} to byte {}", shown,
                   name_of(entry.dtype), fmt::join(entry.extents, ","), entry.begin, entry.end);
  return entry;
}

std::map<std::string, std::string> parse_metadata(const Json& json, std::string_view place) {
  std::map<std::string, std::string> metadata;
  require<IoError>(json.is_object(), place, "the header's {} must be an object of strings", kMetadata);
  for (const auto& [key, value] : json.items()) {
    require<IoError>(value.is_string(), place, "the header's {} must be an object of strings: {} is none", kMetadata,
                     printable(key));
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

Tensor lend(const FileBytes& file, const std::byte* data, TensorType type) {
  if (type.shape.elements() == 0) return Tensor(std::move(type));
  if (reinterpret_cast<std::uintptr_t>(data) % size_of(type.dtype) == 0) {
    return Tensor::borrow(std::move(type), data, file.owner);
  }
  Tensor out(std::move(type));
  std::memcpy(out.mutable_raw(), data, out.bytes());
  return out;
}

}  // namespace

bool is_safetensors(std::span<const std::byte> bytes) {
  return bytes.size() > kLengthBytes && header_length(bytes) <= kMaxHeader && bytes[kLengthBytes] == std::byte{'{'};
}

SafetensorsFile read_safetensors(const FileBytes& file) {
  const std::string_view place = file.name;
  require<IoError>(file.bytes.size() >= kLengthBytes, place, "the file is cut short: a safetensors file has a header");
  const std::uint64_t length = header_length(file.bytes);
  require<IoError>(length <= kMaxHeader, place, "the header says it has {} bytes: expected at most {}", length,
                   kMaxHeader);
  require<IoError>(length <= file.bytes.size() - kLengthBytes, place,
                   "the file is cut short: its header should have {} bytes, the file has {} in all", length,
                   file.bytes.size());
  const auto header = file.bytes.subspan(kLengthBytes, length);
  const auto data = file.bytes.subspan(kLengthBytes + length);
  const Json json = parse_json({reinterpret_cast<const char*>(header.data()), header.size()}, place);
  require<IoError>(json.is_object(), place, "the header must be a JSON object, got {}", json.type_name());

  SafetensorsFile out;
  std::vector<Entry> entries;
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadata) {
      out.metadata = parse_metadata(value, place);
    } else {
      entries.push_back(parse_entry(name, value, place));
    }
  }
  std::ranges::sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
  std::uint64_t covered = 0;
  for (const Entry& entry : entries) {
    require<IoError>(entry.begin == covered, place, "the data of {} starts at byte {}: expected {}; it {}",
                     printable(entry.name), entry.begin, covered,
                     entry.begin < covered ? "overlaps another tensor's" : "leaves a gap");
    require<IoError>(entry.end <= data.size(), place,
                     "the file is cut short: the data of {} ends at byte {}, the file has {} bytes of data",
                     printable(entry.name), entry.end, data.size());
    covered = entry.end;
    out.tensors.emplace_back(entry.name, lend(file, data.data() + entry.begin, {entry.dtype, Shape(entry.extents)}));
  }
  require<IoError>(covered == data.size(), place, "the tensors end at byte {} of the data, the file has {} bytes",
                   covered, data.size());
  return out;
}

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string place = printable(path.string(), 1000);
  Json header = Json::object();
  if (!metadata.empty()) header[std::string(kMetadata)] = metadata;
  std::set<std::string_view> names = {kMetadata};
  auto& entries = static_cast<std::vector<std::pair<const std::string, Json>>&>(header.get_ref<Json::object_t&>());
  std::size_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    require<ConfigError>(names.insert(name).second, place, "a tensor cannot be named {}: the name is taken",
                         printable(name));
    const auto* const element =
        std::ranges::find(kElements, tensor.dtype(), &std::pair<std::string_view, DType>::second);
    const auto extents = tensor.shape().extents();
    entries.emplace_back(name, Json{{"dtype", element->first},
                                    {"shape", std::vector<std::int64_t>(extents.begin(), extents.end())},
                                    {"data_offsets", {offset, offset + tensor.bytes()}}});
    offset += tensor.bytes();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception& error) {
    fail<ConfigError>(place, "names and metadata must be UTF-8: {}", printable(error.what()));
  }
  text.append((8 - text.size() % 8) % 8, ' ');  // the data then starts aligned
  require<ConfigError>(text.size() <= kMaxHeader, place, "the header would have {} bytes: expected at most {}",
                       text.size(), kMaxHeader);
  std::array<char, kLengthBytes> length{};
  for (std::size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  OutputFile out(path);
  out.write(std::string_view(length.data(), length.size()));
  out.write(text);
  for (const auto& [name, tensor] : tensors) out.write(std::span(tensor.raw(), tensor.bytes()));
  out.commit();
}

}  // namespace weft
