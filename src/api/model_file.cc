#include "api/model_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/format.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "io/safetensors.h"

namespace weft {
namespace {

constexpr std::string_view kFormatVersion = "1";

// 0.1F as 0.1, not as the double next to it.
std::array<double, 3> shortest(const std::array<float, 3>& values) {
  std::array<double, 3> out{};
  std::ranges::transform(values, out.begin(), [](float x) {
    const std::string text = fmt::format("{}", x);
    double value = x;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
  });
  return out;
}

Json preprocess_to_json(const Preprocess& p) {
  return {{"resize", p.resize},
          {"crop", p.crop},
          {"filter", name_of(p.filter)},
          {"mean", shortest(p.mean)},
          {"std", shortest(p.std)}};
}

Preprocess preprocess_from_json(const Json& json, std::string_view place) {
  try {
    const Preprocess p{.resize = json.at("resize").get<std::int64_t>(),
                       .crop = json.at("crop").get<std::int64_t>(),
                       .filter = parse_filter(json.at("filter").get<std::string>()),
                       .mean = json.at("mean").get<std::array<float, 3>>(),
                       .std = json.at("std").get<std::array<float, 3>>()};
    validate(p);
    return p;
  } catch (const Json::exception&) {
    fail<ConfigError>(place, "preprocessing must have resize, crop, filter, mean and std, got {}",
                      printable(dump(json)));
  }
}

// 0 of what reads text.
int classes_of(const Architecture& architecture) {
  return architecture.pictures() ? architecture.pictures()->classes() : 0;
}

// `meta` as the official trainers and weft's own write it beside the tensors.
void read_training_metadata(const Json& meta, ModelData& data) {
  if (!meta.is_object()) return;
  const Json config = meta.value("config", Json());
  const auto triple = [&](const char* key, std::array<float, 3>& out) {
    const bool found = config.is_object() && config.contains(key) && config[key].is_array() &&
                       config[key].size() == 3 &&
                       std::ranges::all_of(config[key], [](const Json& x) { return x.is_number(); });
    if (found) out = config[key].get<std::array<float, 3>>();
    return found;
  };
  const bool normalisation = triple("mean", data.preprocess.mean) && triple("std", data.preprocess.std);
  validate(data.preprocess);
  data.findings.push_back({"preprocess", dump(preprocess_to_json(data.preprocess)),
                           normalisation ? "mean and std of meta.config; resize and crop assumed"
                                         : "the file does not tell; that of the published models",
                           true});
  const Json classes = meta.value("CLASSES", Json());
  const bool named = classes.is_array() && static_cast<int>(classes.size()) == classes_of(*data.architecture) &&
                     std::ranges::all_of(classes, [](const Json& x) { return x.is_string(); });
  if (named) {
    data.labels = classes.get<std::vector<std::string>>();
    data.findings.push_back({"labels", fmt::format("{} names", data.labels.size()), "meta.CLASSES"});
  }
}

Json metadata_field(const Json& metadata, const char* key, std::string_view place) {
  require<IoError>(metadata.contains(key) && metadata[key].is_string(), place,
                   "the model file has no {} in its metadata", key);
  return parse_json(metadata[key].get<std::string>(), fmt::format("{}: {}", place, key));
}

// A file that weft wrote says everything itself.
void read_own_file(const Checkpoint& file, const Json& overrides, ModelData& data) {
  const Json& metadata = file.metadata;
  const Json version = metadata["weft.format"];
  require<UnsupportedError>(version == kFormatVersion, file.path,
                            "written in weft's model format {}, this version reads {}", printable(dump(version), 20),
                            kFormatVersion);
  require<IoError>(metadata.contains("weft.family") && metadata["weft.family"].is_string(), file.path,
                   "the model file has no weft.family in its metadata");
  Json config = metadata_field(metadata, "weft.config", file.path);
  require<IoError>(config.is_object(), file.path, "weft.config in the model file's metadata is no JSON object");
  config.update(overrides);
  data.architecture = find_family(metadata["weft.family"].get<std::string>()).configure(config);
  data.preprocess = preprocess_from_json(metadata_field(metadata, "weft.preprocess", file.path), file.path);
  const Json labels = metadata_field(metadata, "weft.labels", file.path);
  const bool sound = labels.is_array() &&
                     (labels.empty() || static_cast<int>(labels.size()) == classes_of(*data.architecture)) &&
                     std::ranges::all_of(labels, [](const Json& x) { return x.is_string(); });
  require<IoError>(sound, file.path, "weft.labels must name {} classes", classes_of(*data.architecture));
  data.labels = labels.get<std::vector<std::string>>();
  data.provenance = metadata_field(metadata, "weft.provenance", file.path);
  data.weights = {file.tensors.begin(), file.tensors.end()};
}

void recognise_file(const Checkpoint& file, const Json& overrides, ModelData& data) {
  TensorIndex index;
  for (const auto& [name, tensor] : file.tensors) index.emplace(name, tensor.type());
  for (const Family& family : families()) {
    const auto recognition = family.recognise(index, overrides);
    if (!recognition) continue;
    data.architecture = family.configure(recognition->config);
    data.findings = recognition->findings;
    data.weights = weights_of(file.tensors, *recognition);
    data.preprocess = default_preprocess(*data.architecture);
    if (data.architecture->pictures()) read_training_metadata(file.metadata.value("meta", Json::object()), data);
    data.provenance = {{"file", std::filesystem::path(file.path).filename().string()}, {"format", file.format}};
    if (!file.section.empty()) data.provenance["section"] = file.section;
    return;
  }
  std::string some;
  for (const auto& [name, type] : index) {
    if (some.size() > 120) break;
    some += fmt::format(" {} {};", printable(name, 60), type);
  }
  fail<WeightError>(file.path, "its {} tensors are of no family that weft knows:{} …", index.size(), some);
}

}  // namespace

Preprocess default_preprocess(const Architecture& architecture) {
  const PictureArchitecture* const pictures = architecture.pictures();
  if (!pictures) return {};
  const Preset* preset = matching_preset(find_family(architecture.family()), architecture.config());
  const auto [height, width] = pictures->native_size();
  const std::int64_t crop = preset ? preset->side : std::min(height, width);
  return {.resize = crop == 224 ? 256 : crop, .crop = crop};
}

ModelData read_model_file(const std::filesystem::path& path, const LoadOptions& options) {
  const Checkpoint file = read_checkpoint(path, {.section = options.section});
  const Json overrides = overrides_of(options);
  ModelData data;
  if (file.metadata.contains("weft.format")) {
    read_own_file(file, overrides, data);
  } else {
    recognise_file(file, overrides, data);
  }
  check_weights(data, path.string());
  return data;
}

std::map<std::string, std::string> metadata_of(const ModelData& data) {
  return {
      {"weft.format", std::string(kFormatVersion)},
      {"weft.family", std::string(data.architecture->family())},
      {"weft.config", dump(data.architecture->config())},
      {"weft.labels", dump(Json(data.labels))},
      {"weft.preprocess", dump(preprocess_to_json(data.preprocess))},
      {"weft.provenance", dump(data.provenance)},
  };
}

void write_model_file(const std::filesystem::path& path, const ModelData& data) {
  write_safetensors(path, {data.weights.begin(), data.weights.end()}, metadata_of(data));
}

}  // namespace weft
