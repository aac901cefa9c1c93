// Ctrl-C as a request: what runs long ends in good order.
#pragma once

namespace weft::cli {

/// From now on the first SIGINT or SIGTERM asks the command to end, the second one ends the process.
void leave_on_signals();

/// The signal that came; 0: none.
int caught_signal();

}  // namespace weft::cli
