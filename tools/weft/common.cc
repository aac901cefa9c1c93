#include "common.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "api/model_data.h"

namespace weft::cli {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::pair<DType, std::string_view>, 3> kDTypes = {
    {{DType::kF32, "f32"}, {DType::kBF16, "bf16"}, {DType::kI8, "int8"}}};
constexpr std::string_view kDefaultModel = "vrwkv_cifar10.safetensors";

bool looks_like_model(const fs::path& path) {
  const fs::path suffix = path.extension();
  return suffix == ".safetensors" || suffix == ".pth" || suffix == ".pt";
}

// "; that folder has: …" for a file that is missing, empty when there is nothing to tell.
std::string neighbours(const fs::path& missing) {
  const fs::path folder = missing.has_parent_path() ? missing.parent_path() : fs::path(".");
  std::error_code error;
  std::string names;
  int count = 0;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end && count < 8; entry.increment(error)) {
    if (!looks_like_model(entry->path())) continue;
    names += fmt::format(" {}", printable(entry->path().filename().string(), 60));
    ++count;
  }
  return names.empty() ? "" : fmt::format("; models in {}:{}", folder.string(), names);
}

bool is_preset(std::string_view name) {
  for (const Family& family : families()) {
    for (const Preset& preset : family.presets) {
      if (preset.name == name) return true;
    }
  }
  return false;
}

template <class T>
bool parse_whole(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::vector<fs::path> folders_of_weft(std::string_view installed, std::string_view source) {
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  if (error) return {};
  return {(folder / "../share/weft" / installed).lexically_normal(), (folder / "../.." / source).lexically_normal(),
          (folder / "../../.." / source).lexically_normal()};
}

DType parse_dtype(std::string_view text, std::string_view option) {
  for (const auto& [dtype, name] : kDTypes) {
    if (name == text) return dtype;
  }
  if (text == "auto") return best_dtype();
  fail_usage("{} must be f32, bf16, int8 or auto, got {}", option, text);
}

std::string_view dtype_text(DType dtype) {
  return std::ranges::find(kDTypes, dtype, &std::pair<DType, std::string_view>::first)->second;
}

std::string dtype_note(DType dtype) { return dtype == DType::kF32 ? "" : fmt::format(" ({})", dtype_text(dtype)); }

fs::path model_path(const std::string& argument) {
  if (!argument.empty()) return argument;
  if (const char* variable = std::getenv("WEFT_MODEL"); variable != nullptr && *variable != '\0') return variable;
  for (const fs::path& folder : folders_of_weft("models", "models")) {
    std::error_code error;
    if (const fs::path path = folder / kDefaultModel; fs::exists(path, error)) return path;
  }
  throw IoError(
      fmt::format("the model that comes with weft ({}) is not installed; give one with --model FILE", kDefaultModel));
}

Model load_model(const fs::path& path, const LoadOptions& options) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    const std::string name = path.string();
    if (is_preset(name)) {
      throw ConfigError(fmt::format("{} is a preset, which has no trained weights; give a checkpoint file", name));
    }
    throw IoError(fmt::format("{}: there is no such file{}", name, neighbours(path)));
  }
  return Model::load(path, options);
}

bool is_file(const std::string& name) {
  std::error_code error;
  if (fs::exists(name, error)) return true;
  if (looks_like_model(name) || name.find('/') != std::string::npos) {
    throw IoError(fmt::format("{}: there is no such file{}", name, neighbours(name)));
  }
  find_preset(name);
  return false;
}

Model load_or_create(const std::string& name, const LoadOptions& options) {
  return is_file(name) ? load_model(name, options) : Model::create(name, /*seed=*/0, options);
}

std::unique_ptr<const Architecture> configure_preset(const std::string& name, const LoadOptions& options) {
  const auto [family, preset] = find_preset(name);
  Json config = preset->config;
  config.update(overrides_of(options));
  return family->configure(config);
}

LoadOptions for_size(const std::string& file_or_preset, LoadOptions options, const std::optional<Size>& size) {
  const auto is_size = [](const auto& option) { return option.first == "img_size"; };
  if (!size || is_file(file_or_preset) || std::ranges::any_of(options.config, is_size)) return options;
  const auto architecture = configure_preset(file_or_preset, options);
  if (architecture->pictures() && architecture->pictures()->fixed_size()) {
    options.config.emplace_back("img_size", fmt::format("[{},{}]", size->height, size->width));
  }
  return options;
}

std::optional<Size> given_size(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional(parse_size(text, "--size"));
}

std::vector<std::string> split_list(std::string_view text, std::string_view option) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t comma = text.find(',');
    parts.emplace_back(text.substr(0, comma));
    if (parts.back().empty()) fail_usage("{} has an empty entry", option);
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

std::vector<int> parse_ints(std::string_view text, std::string_view option, int low, int high) {
  std::vector<int> numbers;
  for (const std::string& part : split_list(text, option)) {
    int number = 0;
    if (!parse_whole(part, number) || number < low || number > high) {
      fail_usage("{} must be integers of {} … {}, separated by commas, got {}", option, low, high, part);
    }
    numbers.push_back(number);
  }
  return numbers;
}

std::array<float, 3> parse_triple(std::string_view text, std::string_view option) {
  const std::vector<std::string> parts = split_list(text, option);
  std::array<float, 3> numbers{};
  if (parts.size() != numbers.size()) fail_usage("{} must be three numbers, one per channel, got {}", option, text);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (!parse_whole(parts[i], numbers[i]) || !std::isfinite(numbers[i])) {
      fail_usage("{} must be three numbers, separated by commas, got {}", option, parts[i]);
    }
  }
  return numbers;
}

Size usual_size(const PictureArchitecture& architecture) {
  const Preset* preset = matching_preset(find_family(architecture.family()), architecture.config());
  if (preset) return {preset->side, preset->side};
  const auto [height, width] = architecture.native_size();
  return {height, width};
}

Size parse_size(std::string_view text, std::string_view option) {
  constexpr std::int64_t kMaxSide = 65536;
  const std::size_t cross = text.find('x');
  Size size;
  const bool sound = parse_whole(text.substr(0, cross), size.height) &&
                     parse_whole(cross == std::string_view::npos ? text : text.substr(cross + 1), size.width);
  if (!sound || std::min(size.height, size.width) < 1 || std::max(size.height, size.width) > kMaxSide) {
    fail_usage("{} must be a side or HxW, each 1 … {}, got {}", option, kMaxSide, text);
  }
  return size;
}

std::int64_t parse_bytes(std::string_view text, std::string_view option) {
  double number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(rest, text.data() + text.size());
  constexpr std::array<std::string_view, 4> kUnits = {"", "K", "M", "G"};
  constexpr double kMost = 1e15;
  const auto found = std::ranges::find(kUnits, unit);
  const double bytes = number * std::pow(1024.0, found - kUnits.begin());
  if (error != std::errc() || found == kUnits.end() || !(bytes >= 1 && bytes < kMost)) {
    fail_usage("{} must be a size such as 600M or 1.5G, got {}", option, text);
  }
  return static_cast<std::int64_t>(bytes);
}

std::string grouped(std::int64_t number) {
  std::string text = std::to_string(number);
  const std::size_t first = number < 0 ? 1 : 0;
  for (std::size_t i = text.size(); i > first + 3; i -= 3) text.insert(i - 3, ",");
  return text;
}

std::string si(double number) {
  constexpr std::array kPrefixes = {"", " k", " M", " G", " T", " P", " E"};
  std::size_t prefix = 0;
  while (std::abs(number) >= 1000 && prefix + 1 < kPrefixes.size()) {
    number /= 1000;
    ++prefix;
  }
  if (prefix == 0) return fmt::format("{:g}", number);
  return fmt::format("{:.{}f}{}", number, std::abs(number) >= 100 ? 1 : 3, kPrefixes[prefix]);
}

std::string bytes_text(double bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string one_line(std::string_view text) { return printable(text, std::numeric_limits<std::size_t>::max()); }

void print_json(const Json& json) { fmt::print("{}\n", dump(json)); }

void print_error(std::string_view message) {
  std::fflush(stdout);
  fmt::print(stderr, "weft: {}\n", one_line(message));
}

}  // namespace weft::cli
