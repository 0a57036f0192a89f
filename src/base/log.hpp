#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace mxlm {

/// Sends log lines to stderr (and to `file` when it is not empty). `quiet` keeps warnings and errors only.
/// Use spdlog::info, spdlog::warn and spdlog::error everywhere; results never go through the log.
void configure_logging(bool quiet, const std::string& file);

}  // namespace mxlm
