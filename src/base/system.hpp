#pragma once

// The operating system at the program's start, and its names for reports.

#include <string>

namespace mxlm {

/// The names of the processor and the kernel, for reports.
std::string cpu_name();
std::string os_name();

/// Opens /dev/null for each of the descriptors 0, 1 and 2 that is closed. Otherwise the first files that the program
/// opens would become its standard streams and receive what it prints. For the program's start.
void open_standard_descriptors();

/// Prevents core dumps, also where the kernel passes dumps to a program: a dump would hold the hub's token and
/// gigabytes of weights. For the program's start.
void forbid_core_dumps();

}  // namespace mxlm
