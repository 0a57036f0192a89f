#pragma once

#include <string>

#include "eval/results.hpp"
#include "report/text_layout.hpp"

namespace mxlm {

/// The table that `mxlm sweep` prints: the variants of each run by mean KL divergence a bit saved, best first (those
/// that save none last), Pareto-optimal ones marked; fits 80 columns, and no digit that is only noise. Ends with a
/// newline.
std::string render_sweep_table(const EvalResult& result);

/// The same as CSV (RFC 4180 with "\n"), one line a variant in command order, numbers in full; empty where a number is
/// not finite.
std::string render_sweep_csv(const EvalResult& result, Formulas formulas = Formulas::inert);

}  // namespace mxlm
