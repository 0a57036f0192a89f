#pragma once

// The CSV of --per-token.

#include <span>

#include "io/output_file.hpp"
#include "protocols/protocol.hpp"
#include "report/text_layout.hpp"
#include "statistics/statistics.hpp"
#include "variants/variant.hpp"

namespace mxlm {

/// Writes one CSV row (RFC 4180 with "
/// ") for each scored token, in window order: `window` (index), `position` (of the target in its window), `token` (the
/// id before it, which the model read last), `target` (the scored id), then for each variant `NAME nll`, `NAME p`,
/// `NAME top1` (the most likely id), and for all except the baseline `NAME kld`, `NAME kld_reverse` and, if measured,
/// `NAME jensen_shannon` (nats). Numbers have full precision; "nan" and "inf" stay. `scores[v]` may hold only the first
/// windows; `formulas` applies to names in the header. Commits the file.
void write_per_token_csv(OutputFile& file, std::span<const Variant> variants, std::span<const Window> windows,
                         std::span<const std::vector<WindowScores>> scores, Formulas formulas = Formulas::inert);

}  // namespace mxlm
