#pragma once

namespace mxlm {

/// Makes SIGINT and SIGTERM set a flag (a second one ends the process at once), and ignores SIGPIPE so that a closed
/// pipe is an error of the write.
void install_interrupt_handlers();

/// As if a signal had been seen, but a first one afterwards still does not end the process at once.
void request_interrupt();

/// True once SIGINT or SIGTERM has been seen, or request_interrupt called.
bool interrupt_requested();

/// Throws `Interrupted` if SIGINT or SIGTERM has been seen. Call between pieces of work of well under a second.
void throw_if_interrupted();

}  // namespace mxlm
