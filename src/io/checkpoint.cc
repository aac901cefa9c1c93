#include "io/checkpoint.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "core/format.h"
#include "io/pickle_globals.h"
#include "io/safetensors.h"
#include "io/torch_file.h"

namespace weft {
namespace {

constexpr std::array<std::string_view, 2> kUsualSections = {"model", "state_dict"};
constexpr std::array<std::string_view, 4> kAveragedSections = {"model_ema", "state_dict_ema", "ema_state_dict", "ema"};
constexpr std::string_view kDataParallel = "module.";
constexpr int kMaxDepth = 200;

// Text for a dictionary's key; Python's keys may be numbers.
std::string key_text(const pickle::Value& key) {
  if (const auto* text = std::get_if<pickle::Text>(&key)) return std::string(text->value);
  if (const auto* number = std::get_if<std::int64_t>(&key)) return std::to_string(*number);
  if (const auto* number = std::get_if<double>(&key)) return fmt::format("{}", *number);
  if (const auto* flag = std::get_if<bool>(&key)) return *flag ? "True" : "False";
  return "?";
}

// Plain data as JSON. Values that the pickle shares are copied here, which a few bytes of it can ask for exponentially
// often; hence the budget.
class Converter {
 public:
  Converter(std::size_t pickle_bytes, std::string_view place)
      : budget_((std::size_t{1} << 24) + 16 * pickle_bytes), place_(place) {}

  Json convert(const pickle::Value& value, int depth = 0) {
    require<IoError>(depth < kMaxDepth, place_, "its plain data is nested deeper than {} levels", kMaxDepth);
    charge(sizeof(Json));
    return std::visit([&](const auto& v) { return from(v, depth); }, value);
  }

  // The entries but for the one named `without` and, when asked, but for tensors. The last one with a key counts.
  Json entries(const pickle::Dict& dict, int depth, std::string_view without = {}, bool without_tensors = false) {
    Json::object_t object;
    auto& list = static_cast<std::vector<std::pair<const std::string, Json>>&>(object);
    std::unordered_map<std::string, std::size_t> places;
    for (const auto& [key, value] : dict.entries) {
      std::string name = key_text(key);
      if (!without.empty() && name == without) continue;
      if (without_tensors && std::holds_alternative<const pickle::TensorRef*>(value)) continue;
      charge(sizeof(list[0]) + name.size());
      const auto [found, fresh] = places.emplace(name, list.size());
      Json json = convert(value, depth + 1);
      if (fresh) {
        list.emplace_back(std::move(name), std::move(json));
      } else {
        list[found->second].second = std::move(json);
      }
    }
    return object;
  }

 private:
  void charge(std::size_t bytes) {
    require<IoError>(bytes <= budget_, place_,
                     "its plain data unfolds to far more than the file has reason to hold; it may be malicious");
    budget_ -= bytes;
  }
  Json text(std::string_view text) {
    charge(text.size());
    return std::string(text);
  }

  Json from(pickle::None /*none*/, int /*depth*/) { return nullptr; }
  Json from(bool value, int /*depth*/) { return value; }
  Json from(std::int64_t value, int /*depth*/) { return value; }
  Json from(double value, int /*depth*/) { return value; }
  Json from(pickle::Text value, int /*depth*/) { return text(value.value); }
  Json from(pickle::Bytes value, int /*depth*/) { return text(fmt::format("bytes[{}]", value.value.size())); }
  Json from(const pickle::Opaque* value, int /*depth*/) { return text(value->type); }
  Json from(const pickle::StorageRef* /*value*/, int /*depth*/) { return text("storage"); }
  Json from(pickle::Global value, int /*depth*/) {
    return text(fmt::format("{}.{}", value.entry->module, value.entry->name));
  }
  Json from(const pickle::TensorRef* value, int /*depth*/) {
    return text(fmt::format("{}[{}]", name_of(value->dtype), fmt::join(value->sizes, ",")));
  }
  Json from(const pickle::Dict* value, int depth) { return entries(*value, depth); }
  Json from(const pickle::Sequence* value, int depth) {
    Json array = Json::array();
    for (const pickle::Value& item : value->items) array.push_back(convert(item, depth + 1));
    return array;
  }

  std::size_t budget_;
  std::string_view place_;
};

const pickle::Dict* as_dict(const pickle::Value* value) {
  auto* const* dict = value == nullptr ? nullptr : std::get_if<pickle::Dict*>(value);
  return dict == nullptr ? nullptr : *dict;
}

bool holds_tensors(const pickle::Dict& dict) {
  return std::ranges::any_of(dict.entries, [](const auto& entry) {
    return std::holds_alternative<pickle::Text>(entry.first) &&
           std::holds_alternative<const pickle::TensorRef*>(entry.second);
  });
}

std::string quoted(const std::vector<std::string>& sections) {
  std::string out;
  for (const std::string& section : sections) {
    out += fmt::format("{}\"{}\"", out.empty() ? "" : ", ", printable(section, 60));
  }
  return out;
}

std::string choose_section(const std::vector<std::string>& sections, std::string_view wanted, std::string_view place) {
  const auto first_of = [&](std::span<const std::string_view> names) -> std::optional<std::string> {
    for (const std::string_view name : names) {
      if (std::ranges::find(sections, name) != sections.end()) return std::string(name);
    }
    return std::nullopt;
  };
  require<WeightError>(!sections.empty(), place,
                       "it holds no tensors by name: expected a state_dict, at the top level or in a section");
  if (!wanted.empty()) {
    if (std::ranges::find(sections, wanted) != sections.end()) return std::string(wanted);
    const auto averaged = wanted == "ema" ? first_of(kAveragedSections) : std::nullopt;
    require<WeightError>(averaged.has_value(), place, "it has no section \"{}\" of tensors: expected one of {}",
                         printable(wanted), quoted(sections));
    return *averaged;
  }
  if (const auto usual = first_of(kUsualSections)) return *usual;
  const bool top = std::ranges::find(sections, "") != sections.end();
  require<WeightError>(
      top, place,
      "its tensors are in none of the usual sections (\"model\", \"state_dict\", the top level): choose "
      "a section of {}",
      quoted(sections));
  return "";
}

Checkpoint read_torch(const FileBytes& file, const CheckpointOptions& options) {
  TorchFile torch(file);
  Checkpoint out{.path = file.name, .format = "PyTorch zip"};
  const pickle::Dict* root = as_dict(&torch.root());
  require<WeightError>(root != nullptr, file.name,
                       "it holds something other than a dictionary: expected a state_dict, or a dictionary with one");
  // A model without parameters has an empty state_dict.
  if (holds_tensors(*root) || root->entries.empty()) out.sections.emplace_back();
  for (const auto& [key, value] : root->entries) {
    const pickle::Dict* section = as_dict(&value);
    if (section == nullptr || section == root || !holds_tensors(*section)) continue;
    std::string name = key_text(key);
    if (std::ranges::find(out.sections, name) == out.sections.end()) out.sections.push_back(std::move(name));
  }
  out.section = choose_section(out.sections, options.section, file.name);
  const pickle::Dict* chosen = out.section.empty() ? root : as_dict(root->find(out.section));
  require<WeightError>(chosen != nullptr, file.name, "its section \"{}\" is no dictionary", printable(out.section));
  for (const auto& [key, value] : chosen->entries) {
    const auto* const* tensor = std::get_if<const pickle::TensorRef*>(&value);
    if (tensor == nullptr || !std::holds_alternative<pickle::Text>(key)) continue;
    std::string name = key_text(key);
    Tensor read = torch.tensor(**tensor, name);
    out.tensors.insert_or_assign(std::move(name), std::move(read));
  }
  Converter converter(torch.pickle_bytes(), file.name);
  out.metadata = converter.entries(*root, 0, out.section, /*without_tensors=*/out.section.empty());
  if (!out.section.empty()) {
    Json rest = converter.entries(*chosen, 1, {}, /*without_tensors=*/true);
    if (!rest.empty()) out.metadata[out.section] = std::move(rest);
  }
  return out;
}

Checkpoint read_safe(const FileBytes& file, const CheckpointOptions& options) {
  SafetensorsFile safe = read_safetensors(file);
  Checkpoint out{.path = file.name, .format = "safetensors", .sections = {""}};
  require<WeightError>(options.section.empty(), file.name,
                       "it has no section \"{}\": a safetensors file has one set of tensors, without a name",
                       printable(options.section));
  for (auto& [name, tensor] : safe.tensors) out.tensors.emplace(std::move(name), std::move(tensor));
  for (const auto& [key, value] : safe.metadata) out.metadata[key] = value;
  return out;
}

void strip_data_parallel(std::map<std::string, Tensor>& tensors) {
  const auto prefixed = [](const auto& entry) {
    return entry.first.starts_with(kDataParallel) && entry.first.size() > kDataParallel.size();
  };
  if (tensors.empty() || !std::ranges::all_of(tensors, prefixed)) return;
  std::map<std::string, Tensor> stripped;
  for (auto& [name, tensor] : tensors) stripped.emplace(name.substr(kDataParallel.size()), std::move(tensor));
  tensors = std::move(stripped);
}

// What else a file may be that someone would hand in as weights.
std::string_view guess_format(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 64));
  if (text.starts_with("\x93NUMPY")) return "a NumPy array";
  if (text.starts_with("\x89HDF")) return "an HDF5 file";
  if (text.starts_with("GGUF")) return "a GGUF file";
  if (text.starts_with("\x1f\x8b")) return "a gzip file: unpack it first";
  if (text.starts_with("<!DOCTYPE") || text.starts_with("<html")) return "a web page: the download went wrong";
  if (text.starts_with("version https://git-lfs")) return "a Git LFS pointer: run git lfs pull";
  return "something else";
}

}  // namespace

Checkpoint read_checkpoint(const FileBytes& file, const CheckpointOptions& options) {
  const bool torch = is_torch_file(file.bytes);
  require<IoError>(torch || is_safetensors(file.bytes), file.name,
                   "expected a PyTorch checkpoint or a safetensors file, got {}", guess_format(file.bytes));
  Checkpoint out = torch ? read_torch(file, options) : read_safe(file, options);
  strip_data_parallel(out.tensors);
  return out;
}

Checkpoint read_checkpoint(const std::filesystem::path& path, const CheckpointOptions& options) {
  return read_checkpoint(map_file(path), options);
}

bool all_finite(const Tensor& tensor) {
  // NaN and infinity are the values whose exponent bits are all ones.
  const auto check = [&]<class Bits>(Bits exponent) {
    const std::span values(reinterpret_cast<const Bits*>(tensor.raw()), static_cast<std::size_t>(tensor.elements()));
    return std::ranges::none_of(values, [=](Bits bits) { return (bits & exponent) == exponent; });
  };
  switch (tensor.dtype()) {
    case DType::kF64:
      return check(std::uint64_t{0x7FF0000000000000U});
    case DType::kF32:
      return check(std::uint32_t{0x7F800000U});
    case DType::kF16:
      return check(std::uint16_t{0x7C00U});
    case DType::kBF16:
      return check(std::uint16_t{0x7F80U});
    default:
      return true;
  }
}

}  // namespace weft
