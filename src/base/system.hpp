#pragma once

#include <string>

namespace mxlm {

/// The processor's and the kernel's names, for reports.
std::string cpu_name();
std::string os_name();

/// Opens /dev/null where descriptor 0, 1 or 2 is closed, for the first files that are opened would become the standard
/// streams and receive what is printed. For the program's start.
void open_standard_descriptors();

/// Lets the process leave no core dump, also where the kernel hands dumps to a program: a dump would hold the hub's
/// token and gigabytes of weights. For the program's start.
void forbid_core_dumps();

}  // namespace mxlm
