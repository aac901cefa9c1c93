#include "interrupt.h"

#include <csignal>

namespace weft::cli {
namespace {

volatile std::sig_atomic_t caught = 0;

}  // namespace

void leave_on_signals() {
  struct sigaction action = {};
  action.sa_handler = [](int signal) { caught = signal; };
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);  // what is being read or written goes on
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int caught_signal() { return caught; }

}  // namespace weft::cli
