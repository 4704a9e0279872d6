#pragma once
// Requests to stop (SIGTERM, SIGINT, SIGUSR1, and SIGHUP of a terminal that is closed, unless it is
// ignored, as under nohup): a flag that long loops poll. A second SIGINT ends the process at once.
namespace grist {

void install_stop_handlers();  // also ignores SIGPIPE and SIGXFSZ, so that those arrive as errors
                               // of a write
int stop_signal();             // the signal that asked, or 0

}  // namespace grist
