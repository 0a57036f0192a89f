#pragma once

// How a run ends early: signals of the program, and cancellation of a thread's work in the library.

#include <functional>

namespace mxlm {

/// Installs the program's signal handlers; the library leaves signals alone. SIGINT and SIGTERM set a flag, and SIGHUP
/// does so unless it is ignored; a second signal ends the process at once. SIGPIPE and SIGXFSZ are ignored, so that a
/// closed pipe and a file above `ulimit -f` become errors of the write.
void install_interrupt_handlers();

/// Returns true once the work is to end. The work asks at its own pace, possibly from several threads at once. Must not
/// throw.
using Cancelled = std::function<bool()>;

/// While a scope lives, the work of its thread also ends when `cancelled` returns true. A thread that works for another
/// one takes over the other's cancellation (current_cancellation). Scopes nest; the innermost counts.
class CancellationScope {
 public:
  /// Borrows `cancelled`; with null, only signals count.
  explicit CancellationScope(const Cancelled* cancelled);
  ~CancellationScope();
  CancellationScope(const CancellationScope&) = delete;
  CancellationScope& operator=(const CancellationScope&) = delete;

 private:
  const Cancelled* outer_;
};

/// The cancellation of the innermost CancellationScope of this thread, or null.
const Cancelled* current_cancellation();

/// Acts as if a signal had been seen. The first real signal afterwards does not yet end the process at once.
void request_interrupt();

/// True once SIGINT, SIGTERM or SIGHUP was seen, request_interrupt was called, or this thread's work was cancelled.
bool interrupt_requested();

/// Throws `Interrupted` if interrupt_requested(). Call it between pieces of work that take well under a second.
void throw_if_interrupted();

}  // namespace mxlm
