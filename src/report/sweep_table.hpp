#pragma once

// The outputs of a sweep: table and CSV.

#include <string>

#include "report/text_layout.hpp"
#include "run/results.hpp"

namespace mxlm {

/// The table that `mxlm sweep` prints: the variants of each run by mean KL divergence per bit saved, best first
/// (variants that save no bits last), with marks for Pareto-optimal ones. It fits 80 columns, and no digit is only
/// noise. Ends with a newline.
std::string render_sweep_table(const EvalResult& result);

/// The same as CSV (RFC 4180 with "
/// "), one line per variant in command order, numbers in full precision; empty if a number is not finite.
std::string render_sweep_csv(const EvalResult& result, Formulas formulas = Formulas::inert);

}  // namespace mxlm
