#pragma once

#include <functional>

namespace mxlm {

/// Makes SIGINT and SIGTERM set a flag (a second one ends the process at once), SIGHUP as well unless it is ignored.
/// Ignores SIGPIPE and SIGXFSZ, so that a closed pipe and a file above `ulimit -f` are errors of the write. For the
/// program; the library leaves signals alone.
void install_interrupt_handlers();

/// Asked by whatever a thread works on, and so by several threads at once: true once the work is to end. Must not
/// throw.
using Cancelled = std::function<bool()>;

/// While it lives, the work of this thread ends when `cancelled` says so as well. Threads that work for others take
/// over what holds for the thread that starts them (current_cancellation). Scopes nest; the innermost counts.
class CancellationScope {
 public:
  /// `cancelled` is borrowed; null: only signals count.
  explicit CancellationScope(const Cancelled* cancelled);
  ~CancellationScope();
  CancellationScope(const CancellationScope&) = delete;
  CancellationScope& operator=(const CancellationScope&) = delete;

 private:
  const Cancelled* outer_;
};

/// What the innermost CancellationScope of this thread was given, or null.
const Cancelled* current_cancellation();

/// As if a signal had been seen, but a first one afterwards still does not end the process at once.
void request_interrupt();

/// True once SIGINT, SIGTERM or SIGHUP has been seen, request_interrupt called, or the work of this thread cancelled.
bool interrupt_requested();

/// Throws `Interrupted` if interrupt_requested(). Call between pieces of work of well under a second.
void throw_if_interrupted();

}  // namespace mxlm
