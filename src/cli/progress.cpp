#include "cli/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/quote.hpp"
#include "report/progress_text.hpp"

namespace mxlm::cli {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kPlainLine = std::chrono::seconds(10);

/// The width of the terminal that shows stderr, or a large number if the terminal does not report its width.
size_t terminal_columns() {
  winsize size{};
  constexpr size_t kMost = 4096;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : kMost;
}

/// The first `columns` code points of a line, as if each took one column.
std::string first_columns(std::string line, size_t columns) {
  size_t count = 0;
  const auto end = std::find_if(line.begin(), line.end(), [&](char c) {
    const bool continues = (static_cast<unsigned char>(c) & 0xc0U) == 0x80U;
    return !continues && count++ == columns;
  });
  line.erase(end, line.end());
  return line;
}

}  // namespace

ProgressLine::ProgressLine(std::string what, bool quiet)
    : what_(std::move(what)),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

ProgressLine::~ProgressLine() {
  if (drawn_ && terminal_) std::fputs("\r\033[K", stderr);
}

bool ProgressLine::due() {
  if (quiet_) return false;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < (terminal_ ? std::chrono::steady_clock::duration(kRedraw) : kPlainLine)) return false;
  last_ = now;
  return true;
}

void ProgressLine::draw(const std::string& text) {
  std::string line = printable_text(text);
  // A line that wraps could not be overwritten by the next.
  if (terminal_) line = first_columns(std::move(line), terminal_columns() - 1);
  std::fputs(((terminal_ ? "\r\033[K" : "") + line + (terminal_ ? "" : "\n")).c_str(), stderr);
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressLine::update(const Progress& progress) {
  if (!due()) return;
  draw(progress_text(what_, progress));
}

void ProgressLine::update(const hub::FetchProgress& progress) {
  const auto now = std::chrono::steady_clock::now();
  if (!fetching_) {
    fetching_ = true;
    start_ = now;
    first_bytes_ = progress.bytes;
  }
  if (!due()) return;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const auto come = static_cast<double>(progress.bytes) - static_cast<double>(first_bytes_);
  const double rate = seconds > 0 && come > 0 ? come / seconds : 0;
  const auto total = static_cast<double>(std::max(progress.total_bytes, progress.bytes));
  const double left = total - static_cast<double>(progress.bytes);
  draw(fmt::format("{}: {:.1f} of {:.1f} MB ({} of {} files), {:.1f} MB/s{}", progress.what.substr(0, 40),
                   static_cast<double>(progress.bytes) / 1e6, total / 1e6, progress.files, progress.total_files,
                   rate / 1e6, rate > 0 ? ", " + duration_text(left / rate) + " left" : ""));
}

}  // namespace mxlm::cli
