#include "train/state.h"

#include <cerrno>
#include <charconv>
#include <fstream>
#include <system_error>

#include "core/format.h"
#include "core/options.h"
#include "io/json.h"
#include "io/mapped_file.h"
#include "io/output_file.h"
#include "io/safetensors.h"

namespace weft {
namespace fs = std::filesystem;
namespace {

constexpr const char* kKey = "weft.training";
constexpr int kVersion = 2;  // 1 knew pictures only

struct Section {
  std::string_view prefix;
  TrainerState::Tensors TrainerState::*tensors;
};
constexpr std::array<Section, 4> kSections = {{{"weights/", &TrainerState::weights},
                                               {"first/", &TrainerState::first},
                                               {"second/", &TrainerState::second},
                                               {"average/", &TrainerState::average}}};

}  // namespace

Json position_of(const RunState& state) {
  return {{"version", kVersion},        {"steps", state.trainer.steps},
          {"world", state.world},       {"best", state.best ? Json(*state.best) : Json(nullptr)},
          {"loss_sum", state.loss_sum}, {"logged", state.logged},
          {"loss", state.loss},         {"config", config_to_json(state.config)}};
}

void set_position(const Json& position, RunState& state, const std::string& place) {
  try {
    const int version = position.at("version").get<int>();
    require<UnsupportedError>(version >= 1 && version <= kVersion, place, "is of version {}, this weft reads 1 … {}",
                              version, kVersion);
    state.trainer.steps = position.at("steps").get<std::int64_t>();
    state.world = position.at("world").get<int>();
    const Json& best = position.at(version == 1 ? "best_top1" : "best");  // −1 and null: none
    state.best.reset();
    if (version == 1 ? best.get<double>() >= 0 : !best.is_null()) state.best = best.get<double>();
    state.loss_sum = position.at("loss_sum").get<double>();
    state.logged = position.at("logged").get<std::int64_t>();
    state.loss = position.value("loss", 0.0);  // early states are without
    config_from_json(position.at("config"), state.config, place);
  } catch (const Json::exception&) {
    fail<IoError>(place, "does not say where the run stands: the file is damaged");
  }
}

void write_state(const fs::path& folder, const RunState& state) {
  NamedTensors tensors;
  for (const Section& section : kSections) {
    for (const auto& [name, tensor] : state.trainer.*section.tensors) {
      tensors.emplace_back(std::string(section.prefix) + name, tensor);
    }
  }
  write_safetensors(folder / run_files::kState, tensors, {{kKey, dump(position_of(state))}});
}

RunState read_state(const fs::path& folder) {
  const fs::path path = folder / run_files::kState;
  std::error_code error;
  require<IoError>(fs::exists(path, error), path.string(),
                   "there is no saved state; is this the folder of a training run?");
  const SafetensorsFile file = read_safetensors(map_file(path));
  const auto found = file.metadata.find(kKey);
  require<IoError>(found != file.metadata.end(), path.string(), "is no state of a training run");
  RunState state;
  set_position(parse_json(found->second, path.string()), state, path.string());
  for (const auto& [name, tensor] : file.tensors) {
    for (const Section& section : kSections) {
      if (!name.starts_with(section.prefix)) continue;
      (state.trainer.*section.tensors).emplace(name.substr(section.prefix.size()), tensor.clone());
    }
  }
  return state;
}

void rewind_log(const fs::path& folder, std::int64_t steps) {
  const fs::path path = folder / run_files::kLog;
  std::ifstream in(path);
  if (!in) return;
  OutputFile out(path);
  for (std::string line; std::getline(in, line);) {
    const Json entry = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const auto step = entry.is_object() ? entry.find("step") : entry.end();
    // Lines may be cut off: the last one of a run that was killed, any of one whose disk was full.
    if (!entry.is_object() || step == entry.end() || !step->is_number_integer() || *step > steps) continue;
    out.write(line + "\n");
  }
  out.commit();
}

}  // namespace weft
