#pragma once

#include <fmt/format.h>
#include <spdlog/logger.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace mxlm {

// Use log_info, log_warn, log_error and log_debug everywhere; results never go through the log. Until one of the two
// functions below is called, lines go nowhere, because a library does not print.

/// Sends log lines to stderr (and to `file` when it is not empty). `quiet` keeps warnings and errors only.
void configure_logging(bool quiet, const std::string& file);

/// Passes lines of level information and above to `handler`, from any thread, one line at a time; null discards them.
void send_log_to(std::function<void(spdlog::level::level_enum level, std::string_view line)> handler);

/// The place that lines go to at the moment.
std::shared_ptr<spdlog::logger> current_log();

/// Writes one line, in the form that message_text gives it.
void write_log(spdlog::level::level_enum level, std::string_view line);

template <typename... Args>
void log_debug(fmt::format_string<Args...> text, Args&&... args) {
  write_log(spdlog::level::debug, fmt::format(text, std::forward<Args>(args)...));
}
template <typename... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  write_log(spdlog::level::info, fmt::format(text, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warn(fmt::format_string<Args...> text, Args&&... args) {
  write_log(spdlog::level::warn, fmt::format(text, std::forward<Args>(args)...));
}
template <typename... Args>
void log_error(fmt::format_string<Args...> text, Args&&... args) {
  write_log(spdlog::level::err, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace mxlm
