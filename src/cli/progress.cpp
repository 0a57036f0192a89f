#include "cli/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
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

/// A device in more or less detail, 0 being all.
std::string one_device(const DeviceProgress& device, int detail) {
  const GpuSample& s = device.sample;
  const auto whole = [](double x) { return fmt::format("{}", std::lround(x)); };
  constexpr double giga = 1e9, kilo = 1e3;
  std::string out;
  const auto add = [&out](bool known, const std::string& text) {
    if (known) out += (out.empty() ? "" : " ") + text;
  };
  add(true, detail <= 2 ? fmt::format("gpu{}", device.index) : fmt::format("{}:", device.index));
  if (s.utilization) {
    if (detail == 3) {
      out += fmt::format("{}%", *s.utilization);
    } else {
      add(true, fmt::format("{}%", *s.utilization));
    }
  }
  if (s.memory_used && detail <= 1) {
    const double used = static_cast<double>(*s.memory_used) / giga;
    add(device.memory_bytes > 0,
        fmt::format("{}/{} GB", whole(used), whole(static_cast<double>(device.memory_bytes) / giga)));
  }
  if (detail == 0) add(s.temperature.has_value(), fmt::format("{} C", s.temperature.value_or(0)));
  if (detail <= 2) add(s.power.has_value(), whole(s.power.value_or(0)) + " W");
  if (detail == 0) add(s.sm_clock.has_value(), fmt::format("{:.2f} GHz", s.sm_clock.value_or(0) / kilo));
  return out;
}

}  // namespace

std::string device_text(const std::vector<DeviceProgress>& devices, size_t columns) {
  if (std::none_of(devices.begin(), devices.end(), [](const auto& d) { return d.sample.utilization.has_value(); })) {
    return "";
  }
  for (int detail = 0; detail <= 3; ++detail) {
    std::string out;
    for (const DeviceProgress& device : devices) {
      out += (out.empty() ? " | " : detail <= 2 ? ", " : " ") + one_device(device, detail);
    }
    if (out.size() <= columns) return out;
  }
  // Their numbers are their places.
  std::string out = " | gpus";
  for (const DeviceProgress& device : devices) {
    out += device.sample.utilization ? fmt::format(" {}", *device.sample.utilization) : " ?";
  }
  out += '%';
  return out.size() <= columns ? out : "";
}

std::string progress_text(const std::string& what, const Progress& progress) {
  constexpr size_t kColumns = 80, kName = 24, kShortName = 12;
  const double rate = progress.seconds > 0 ? progress.done / progress.seconds : 0;
  const double left = rate > 0 ? (progress.total - progress.done) / rate : 0;
  const double percent = progress.total > 0 ? 100 * progress.done / progress.total : 0;
  const size_t round = std::min(progress.round + 1, progress.rounds);
  const std::string full = fmt::format("{}: {:.0f}% (round {} of {}), {:.0f} tokens/s, {} left", what.substr(0, kName),
                                       percent, round, progress.rounds, rate, duration_text(left));
  const auto room = [](const std::string& line) { return line.size() < kColumns ? kColumns - line.size() : 0; };
  if (progress.devices.size() <= 1) {
    if (const std::string devices = device_text(progress.devices, room(full)); !devices.empty()) return full + devices;
  }
  const std::string brief =
      fmt::format("{}: {:.0f}% {:.0f} tok/s {}", what.substr(0, kShortName), percent, rate, duration_text(left));
  if (const std::string devices = device_text(progress.devices, room(brief)); !devices.empty()) return brief + devices;
  return full;
}

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

void ProgressLine::draw(const std::string& line) {
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
