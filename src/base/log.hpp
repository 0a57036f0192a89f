#pragma once

#include <fmt/format.h>
#include <spdlog/logger.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace mxlm {

// log_info, log_warn, log_error and log_debug everywhere; results never go through the log. Until one of the two
// functions below is called, lines go nowhere: a library does not print.

/// Sends log lines to stderr (and to `file` when it is not empty). `quiet` keeps warnings and errors only.
void configure_logging(bool quiet, const std::string& file);

/// Hands lines that are at least information to `handler` instead, from any thread, one at a time; null: nowhere.
void send_log_to(std::function<void(spdlog::level::level_enum level, std::string_view line)> handler);

/// Where lines go at the moment.
std::shared_ptr<spdlog::logger> current_log();

/// Writes one line, as message_text makes it.
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
