#pragma once

#include <string>

namespace mxlm {

/// The processor's and the kernel's names, for reports.
std::string cpu_name();
std::string os_name();

}  // namespace mxlm
