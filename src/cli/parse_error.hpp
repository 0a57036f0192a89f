#pragma once

// Messages about command lines that do not parse.

#include <CLI/CLI.hpp>
#include <string>

namespace mxlm::cli {

/// One sentence about a command line that does not parse. It suggests a similar command or option if there is one.
std::string describe(const CLI::App& app, const CLI::ParseError& error);

}  // namespace mxlm::cli
