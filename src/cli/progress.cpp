#include "cli/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace mxlm::cli {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kPlainLine = std::chrono::seconds(10);

std::string duration_text(double seconds) {
  const auto s = std::lround(seconds);
  if (s < 120) return fmt::format("{} s", s);
  if (s < 7200) return fmt::format("{} min {} s", s / 60, s % 60);
  return fmt::format("{} h {} min", s / 3600, s % 3600 / 60);
}

}  // namespace

ProgressLine::ProgressLine(std::string what, bool quiet)
    : what_(std::move(what)),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      last_(std::chrono::steady_clock::now()) {}

ProgressLine::~ProgressLine() {
  if (drawn_ && terminal_) std::fputs("\r\033[K", stderr);
}

void ProgressLine::update(const Progress& progress) {
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < (terminal_ ? std::chrono::steady_clock::duration(kRedraw) : kPlainLine)) return;
  last_ = now;
  const double rate = progress.seconds > 0 ? progress.done / progress.seconds : 0;
  const double left = rate > 0 ? (progress.total - progress.done) / rate : 0;
  const std::string line =
      fmt::format("{}: {:.0f}% (round {} of {}), {:.0f} tokens/s, {} left", what_.substr(0, 24),
                  100 * progress.done / progress.total, progress.round + 1, progress.rounds, rate, duration_text(left));
  std::fputs(((terminal_ ? "\r\033[K" : "") + line + (terminal_ ? "" : "\n")).c_str(), stderr);
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace mxlm::cli
