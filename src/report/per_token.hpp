#pragma once

#include <span>

#include "eval/protocol.hpp"
#include "eval/statistics.hpp"
#include "eval/variant.hpp"
#include "io/output_file.hpp"
#include "report/text_layout.hpp"

namespace mxlm {

/// Writes one CSV row (RFC 4180 with "\n") a scored token, in window order: `window` (index), `position` (of the target
/// in its window), `token` (the id before it, which the model read last), `target` (the id scored), then for each
/// variant `NAME nll`, `NAME p`, `NAME top1` (the most likely id), and for all but the baseline `NAME kld`,
/// `NAME kld_reverse` and, where it was measured, `NAME jensen_shannon` (nats). Numbers in full; "nan" and "inf" as
/// such. `scores[v]` may hold the first windows only; `formulas` is of the head's names. Commits the file.
void write_per_token_csv(OutputFile& file, std::span<const Variant> variants, std::span<const Window> windows,
                         std::span<const std::vector<WindowScores>> scores, Formulas formulas = Formulas::inert);

}  // namespace mxlm
