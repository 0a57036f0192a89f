#pragma once

// What the figures of a variant mean: their errors, and whether a change is more than these.

#include <string>
#include <vector>

#include "report/html.hpp"
#include "report/record.hpp"
#include "report/verdict.hpp"

namespace mxlm::report {

/// Of variant `index` of the run; errors are those by cluster, by token in files without them. The last three are in
/// percent, in 1/1000 nat a token, and in percent; NaN for the baseline.
ShownFigure ppl_figure(const Run& run, size_t index);
ShownFigure ppl_change_figure(const Run& run, size_t index);
ShownFigure kld_figure(const Run& run, size_t index);
ShownFigure top1_figure(const Run& run, size_t index);
/// The same for the figures that a subset has of a variant.
ShownFigure ppl_change_figure(const Source& from, const VariantFigures& figures);
ShownFigure ppl_figure(const Source& from, const VariantFigures& figures);

/// [variant], of the baseline unknown. A change of perplexity within twice its measured rounding noise is noise.
std::vector<Verdict> verdicts(const Run& run);

/// What ± is in a run: "± is one standard error, for other windows of this text, from 42 windows." Holds a string of
/// the file.
std::string error_note(const Run& run);

/// What the plots have on their axis of sizes: mean bits of a weight where the files have them, else megabytes.
enum class SizeAxis : uint8_t { bits, megabytes };
SizeAxis size_axis(const Run& run);
Figure size_figure(const Run& run, size_t index, SizeAxis axis);

/// Variants (1 and up) of which none has both fewer bits and less KL divergence (or as much of one and less of the
/// other), by size.
std::vector<size_t> pareto_front(const Run& run, SizeAxis axis);

/// "perplexity" and "PPL", or of the protocol `self` "self-perplexity" and "self-PPL".
std::string quantity_name(const Run& run);
std::string short_quantity_name(const Run& run);

/// What a page calls a model, and variant `index` where it has room for a few words only.
std::string model_name(const Run& run);
std::string short_name(const Variant& variant, size_t columns);

}  // namespace mxlm::report
