#pragma once

#include <string>
#include <vector>

#include "rounds/progress.hpp"

namespace mxlm {

/// "50 s", "3 min 20 s", "2 h 5 min".
std::string duration_text(double seconds);

/// What is known of the devices in at most `columns` columns (" | gpu0 98% 71/80 GB 65 C 650 W 1.98 GHz"), the less of
/// each the more there are, and at last their range; "" without devices, or where not even their utilisation fits.
std::string device_text(const std::vector<DeviceProgress>& devices, size_t columns);

/// The progress of a run on one line, with what is known of its devices in at most 80 columns.
std::string progress_text(const std::string& what, const Progress& progress);

}  // namespace mxlm
