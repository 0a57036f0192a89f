#include "io/cut_files.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace mxlm {
namespace {

// A signal handler may use neither locks nor memory, so the table has a fixed place and atomic members.
struct ExplainedRange {
  std::atomic<bool> taken{false};
  std::atomic<uintptr_t> begin{0}, end{0};  // begin 0: an empty entry
  std::atomic<int> fd{-1};
  std::atomic<const char*> shown{nullptr};
};
static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free);

constexpr size_t kRanges = 4096;

std::array<ExplainedRange, kRanges>& explained_ranges() {
  static std::array<ExplainedRange, kRanges> ranges;
  return ranges;
}

void write_parts(std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    if (::write(STDERR_FILENO, part, std::strlen(part)) < 0) return;
  }
}

void on_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const ExplainedRange& range : explained_ranges()) {
    const uintptr_t begin = range.begin.load();
    if (begin == 0 || address < begin || address >= range.end.load()) continue;
    struct stat status {};
    const bool cut = ::fstat(range.fd.load(), &status) == 0 &&
                     static_cast<uint64_t>(status.st_size) < static_cast<uint64_t>(range.end.load() - begin);
    write_parts({"\nmxlm: ", range.shown.load(),
                 cut ? " was cut while it was in use; put it back as it was."
                     : " can no longer be read from its disk; check the disk.",
                 " A journal keeps the finished rounds, from which the same command with --resume goes on.\n"});
    _exit(1);
  }
  // The address is in no known mapping: the instruction runs again and ends the process as it would have without us.
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

void explain_cut_files() {
  explained_ranges();  // constructed here, because the handler must not
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

ExplainedMapping::ExplainedMapping(std::span<const std::byte> bytes, int fd, const char* shown) : slot_(kRanges) {
  for (size_t slot = 0; slot < kRanges; ++slot) {
    ExplainedRange& range = explained_ranges()[slot];
    if (range.taken.exchange(true)) continue;
    const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
    range.fd = fd;
    range.shown = shown;
    range.end = begin + bytes.size();
    range.begin = begin;
    slot_ = slot;
    return;
  }
}

ExplainedMapping::~ExplainedMapping() {
  if (slot_ == kRanges) return;
  ExplainedRange& range = explained_ranges()[slot_];
  range.begin = 0;
  range.taken = false;
}

}  // namespace mxlm
