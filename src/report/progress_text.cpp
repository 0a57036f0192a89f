#include "report/progress_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cmath>

namespace mxlm {
namespace {

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

std::string duration_text(double seconds) {
  const auto s = std::lround(seconds);
  if (s < 120) return fmt::format("{} s", s);
  if (s < 7200) return fmt::format("{} min {} s", s / 60, s % 60);
  return fmt::format("{} h {} min", s / 3600, s % 3600 / 60);
}

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
  if (out.size() <= columns) return out;
  // Too many for that: from the least busy one to the busiest.
  int least = INT_MAX, most = INT_MIN;
  for (const DeviceProgress& device : devices) {
    if (!device.sample.utilization) continue;
    least = std::min(least, *device.sample.utilization);
    most = std::max(most, *device.sample.utilization);
  }
  out = least == most ? fmt::format(" | {} gpus {}%", devices.size(), most)
                      : fmt::format(" | {} gpus {}-{}%", devices.size(), least, most);
  return out.size() <= columns ? out : "";
}

std::string progress_text(const std::string& what, const Progress& progress) {
  constexpr size_t kColumns = 80, kName = 24, kShortName = 12;
  const double rate = progress.seconds > 0 ? progress.done / progress.seconds : 0;
  const double left = rate > 0 ? (progress.total - progress.done) / rate : 0;
  const double percent = progress.total > 0 ? 100 * progress.done / progress.total : 0;
  const size_t round = std::min(progress.round + 1, progress.rounds);
  std::string full = fmt::format("{}: {:.0f}% (shard {} of {}), {:.0f} tokens/s, {} left", what.substr(0, kName),
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

}  // namespace mxlm
