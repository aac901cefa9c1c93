#include "train/recorder.h"

#include "core/format.h"
#include "train/state.h"

namespace weft {

void Recorder::open_log() {
  if (!active_) return;
  const std::filesystem::path path = folder_ / run_files::kLog;
  log_.open(path, std::ios::app);
  require<IoError>(log_.is_open(), path.string(), "cannot write the log");
}

void Recorder::log(const Json& line) {
  if (!active_) return;
  log_ << dump(line) << std::endl;
  if (log_) return;
  // What is left of the line shall not stand before the next one.
  log_ = std::ofstream(folder_ / run_files::kLog, std::ios::app);
  log_ << "\n";
  listener_.warned(fmt::format("{}: a line of the log could not be written", run_files::kLog));
}

bool Recorder::file(const std::string& name, bool last,
                    const std::function<void(const std::filesystem::path&)>& write) {
  if (!active_) return true;
  try {
    write(folder_ / name);
    return true;
  } catch (const IoError& error) {
    if (last) throw;
    listener_.warned(fmt::format("{}; going on, the next state will be tried again", error.what()));
    return false;
  }
}

}  // namespace weft
