#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace mxlm::cli {

/// One sentence about a command line that does not parse, with the nearest command or option where one is meant.
std::string describe(const CLI::App& app, const CLI::ParseError& error);

}  // namespace mxlm::cli
