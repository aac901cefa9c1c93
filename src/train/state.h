// A training run on disk: a folder.
//
//   config.json         the whole configuration
//   state.safetensors   all that the next step depends on
//   log.jsonl           a JSON object a line: steps and evaluations
//   curves.svg          the log as a picture
//   last.safetensors    the model at the end of the last epoch
//   best.safetensors    the model with the highest top-1 on the validation pictures, the lowest loss on such text
//   epoch-0010.safetensors   models that save_every keeps
//
// Each file is written whole or not at all, so that a run that is cut off, or a disk that is full, leaves the earlier
// ones as they were.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "core/json.h"
#include "torch/trainer.h"
#include "train/config.h"

namespace weft {

struct RunState {
  TrainConfig config;
  TrainerState trainer;
  int world = 1;               // processes; the order of the samples depends on batch · world
  std::optional<double> best;  // by the task's criterion, so far; none: never evaluated
  double loss_sum = 0;         // of the steps since the last line of the log
  std::int64_t logged = 0;     // the step of that line
  double loss = 0;             // in that line
};

namespace run_files {
constexpr const char* kConfig = "config.json";
constexpr const char* kState = "state.safetensors";
constexpr const char* kLog = "log.jsonl";
constexpr const char* kLast = "last.safetensors";
constexpr const char* kBest = "best.safetensors";
constexpr const char* kCurves = "curves.svg";
}  // namespace run_files

/// All of a state but its tensors.
Json position_of(const RunState& state);
/// Throws IoError naming `place` where that is not what this is, UnsupportedError and ConfigError as read_state does.
void set_position(const Json& position, RunState& state, const std::string& place);

/// Throws IoError.
void write_state(const std::filesystem::path& folder, const RunState& state);
/// Throws IoError for a folder without a state or a damaged one, ConfigError for a configuration that this version does
/// not understand.
RunState read_state(const std::filesystem::path& folder);

/// Cuts the log to the lines of the first `steps` steps: what a run that was cut off wrote later is written again.
void rewind_log(const std::filesystem::path& folder, std::int64_t steps);

}  // namespace weft
