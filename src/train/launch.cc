#include "train/launch.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "core/format.h"
#include "core/threads.h"

namespace weft {
namespace {

constexpr std::string_view kLaunchPlace = "launch";
constexpr int kMany = 1'000'000;

// Names of variables.
struct Launcher {
  const char* rank;
  const char* world;
  const char* local_rank;
  const char* local_world;
};
constexpr std::array kLaunchers = {
    Launcher{"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    Launcher{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
             "OMPI_COMM_WORLD_LOCAL_SIZE"},
    Launcher{"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};
// srun gives each task its cores, so that a task need not know of the others on its machine. A script under sbatch has
// SLURM_PROCID and SLURM_NTASKS, too, but runs once: only a step has a list of its own nodes.
constexpr Launcher kSlurm = {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""};
constexpr const char* kStepNodes = "SLURM_STEP_NODELIST";

class Environment {
 public:
  explicit Environment(const LookUp& variable) : variable_(variable) {}

  std::optional<std::string_view> text(const char* name) const {
    const char* const value = *name != '\0' ? variable_(name) : nullptr;
    return value != nullptr && *value != '\0' ? std::optional<std::string_view>(value) : std::nullopt;
  }

  std::optional<int> number(const char* name, int low, int high) const {
    const auto value = text(name);
    if (!value) return std::nullopt;
    int result = 0;
    const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), result);
    require<ConfigError>(
        error == std::errc() && end == value->data() + value->size() && result >= low && result <= high, kLaunchPlace,
        "{} must be a number within {} … {}, got {}", name, low, high, printable(*value, 60));
    return result;
  }

  // Which variables say where this process stands.
  std::optional<Launcher> launcher() const {
    for (const Launcher& launcher : kLaunchers) {
      if (text(launcher.rank) || text(launcher.world)) return launcher;
    }
    if (!text(kSlurm.rank) || !text(kStepNodes)) return std::nullopt;
    Launcher slurm = kSlurm;
    if (!text(slurm.world)) slurm.world = "SLURM_NTASKS";
    return slurm;
  }

 private:
  const LookUp& variable_;
};

std::string meeting_host(const Environment& environment, const Launch& launch, bool all_local) {
  if (const auto given = environment.text("MASTER_ADDR")) return std::string(*given);
  const auto nodes = environment.text(kStepNodes);
  if (nodes && environment.number(kSlurm.world, 1, kMany).value_or(launch.meeting.world) == launch.meeting.world) {
    return first_host(*nodes);
  }
  require<ConfigError>(all_local, kLaunchPlace,
                       "{} of {} processes are on this machine: set MASTER_ADDR to the host of rank 0 in all of them",
                       launch.local_world, launch.meeting.world);
  return Meeting().host;
}

}  // namespace

int Launch::threads() const { return std::max(Workers().count() / local_world, 1); }

std::string first_host(std::string_view list) {
  std::string host;
  while (!list.empty() && list.front() != ',') {
    if (list.front() != '[') {
      host += list.front();
      list.remove_prefix(1);
      continue;
    }
    const std::size_t close = std::min(list.find(']'), list.size() - 1);
    const std::string_view numbers = list.substr(1, close - 1);
    host += numbers.substr(0, numbers.find_first_of(",-"));
    list.remove_prefix(close + 1);
  }
  return host;
}

Launch read_launch(const LookUp& variable) {
  const Environment environment(variable);
  Launch launch;
  const std::optional<Launcher> names = environment.launcher();
  if (!names) return launch;
  Meeting& meeting = launch.meeting;
  const auto needed = [&](const char* name, const char* other, int low, int high) {
    const std::optional<int> value = environment.number(name, low, high);
    require<ConfigError>(value.has_value(), kLaunchPlace, "{} is set, but {} is not; set or unset both", other, name);
    return *value;
  };
  meeting.world = needed(names->world, names->rank, 1, kMany);
  meeting.rank = needed(names->rank, names->world, 0, kMany);
  require<ConfigError>(meeting.rank < meeting.world, kLaunchPlace, "{}={} must be below {}={}", names->rank,
                       meeting.rank, names->world, meeting.world);
  if (meeting.world == 1) return launch;

  const std::optional<int> local_world = environment.number(names->local_world, 1, meeting.world);
  const std::optional<int> local_rank = environment.number(names->local_rank, 0, kMany);
  launch.local_world = local_world.value_or(1);
  launch.local_rank = local_rank.value_or(0);
  require<ConfigError>(!local_world || launch.local_rank < *local_world, kLaunchPlace, "{}={} must be below {}={}",
                       names->local_rank, launch.local_rank, names->local_world, launch.local_world);
  meeting.host = meeting_host(environment, launch, local_world.value_or(meeting.world) == meeting.world);
  const bool here = meeting.host == "localhost" || meeting.host == "::1" || meeting.host.starts_with("127.");
  if (here && !local_world) launch.local_world = meeting.world;
  if (here && !local_rank) launch.local_rank = meeting.rank;
  meeting.port = environment.number("MASTER_PORT", 1, 65535).value_or(meeting.port);
  // torchrun may keep the meeting place itself, and use it anew for each attempt.
  meeting.hosted = environment.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  if (meeting.hosted) {
    meeting.prefix = fmt::format("attempt_{}/", environment.number("TORCHELASTIC_RESTART_COUNT", 0, kMany).value_or(0));
  }
  return launch;
}

}  // namespace weft
