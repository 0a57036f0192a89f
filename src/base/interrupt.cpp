#include "base/interrupt.hpp"

#include <unistd.h>

#include <atomic>
#include <csignal>

#include "base/error.hpp"

namespace mxlm {
namespace {

std::atomic<bool> g_interrupted{false}, g_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);
thread_local const Cancelled* t_cancelled = nullptr;

void on_signal(int /*signal*/) {
  if (g_interrupted.exchange(true)) _exit(130);
}

// A terminal that closes causes several SIGHUPs: the kernel sends one, and the shell sends one to its jobs.
void on_hangup(int /*signal*/) { g_requested = true; }

}  // namespace

void install_interrupt_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  struct sigaction before {};
  // nohup ignores SIGHUP so that the run outlives its terminal.
  if (sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler != SIG_IGN) {
    action.sa_handler = on_hangup;
    sigaction(SIGHUP, &action, nullptr);
  }
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
  sigaction(SIGXFSZ, &action, nullptr);
}

CancellationScope::CancellationScope(const Cancelled* cancelled) : outer_(t_cancelled) { t_cancelled = cancelled; }

CancellationScope::~CancellationScope() { t_cancelled = outer_; }

const Cancelled* current_cancellation() { return t_cancelled; }

void request_interrupt() { g_requested = true; }

bool interrupt_requested() {
  return g_interrupted.load(std::memory_order_relaxed) || g_requested.load(std::memory_order_relaxed) ||
         (t_cancelled != nullptr && *t_cancelled && (*t_cancelled)());
}

void throw_if_interrupted() {
  if (interrupt_requested()) throw Interrupted();
}

}  // namespace mxlm
