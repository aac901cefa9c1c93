// What a run leaves in its folder, and what it tells: once, however many processes it has.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>

#include "core/json.h"
#include "train/run.h"

namespace weft {

/// Of several processes only rank 0 writes and tells; in the others everything but the request to stop is silent.
class Recorder {
 public:
  Recorder(std::filesystem::path folder, RunListener& listener, bool active)
      : folder_(std::move(folder)), listener_(listener), active_(active) {}

  /// Throws IoError.
  void open_log();
  void log(const Json& line);
  /// Calls `write` with the path of a file in the folder. What cannot be written now may be later: it is warned of. At
  /// the `last` occasion there is no later: throws IoError. False when it could not be written.
  bool file(const std::string& name, bool last, const std::function<void(const std::filesystem::path&)>& write);

  template <class Report>
  void tell(void (RunListener::*what)(Report), std::type_identity_t<Report> report) {
    if (active_) (listener_.*what)(report);
  }
  bool stop_requested() { return listener_.stop_requested(); }

 private:
  std::filesystem::path folder_;
  RunListener& listener_;
  bool active_;
  std::ofstream log_;
};

}  // namespace weft
