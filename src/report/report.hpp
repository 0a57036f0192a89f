#pragma once

// The outputs of an evaluation: the table and the JSON.

#include <string>

#include "run/results.hpp"

namespace mxlm {

/// The table that `mxlm eval` prints. It fits 80 columns, and no digit is only noise: digits follow the larger of the
/// statistical error and the measured rounding noise. Ends with a newline.
std::string render_table(const EvalResult& result);

/// JSON of the schema mxlm.eval/1 (docs/guide.md); numbers that are not finite are null.
std::string render_json(const EvalResult& result);

}  // namespace mxlm
