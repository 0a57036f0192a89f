#include "base/log.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <memory>
#include <vector>

#include "base/error.hpp"

namespace mxlm {

void configure_logging(bool quiet, const std::string& file) {
  std::vector<spdlog::sink_ptr> sinks;
  auto terminal = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  terminal->set_pattern("mxlm: %l: %v");
  terminal->set_level(quiet ? spdlog::level::warn : spdlog::level::info);
  sinks.push_back(terminal);
  if (!file.empty()) {
    try {
      auto log = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file, /*truncate=*/true);
      log->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
      sinks.push_back(log);
    } catch (const spdlog::spdlog_ex& e) {
      fail("The log file '{}' cannot be written ({}); name another with --log-file.", file, e.what());
    }
  }
  auto logger = std::make_shared<spdlog::logger>("mxlm", sinks.begin(), sinks.end());
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
}

}  // namespace mxlm
