#pragma once

// The meaning of a variant's figures: their errors, and whether a change exceeds them.

#include <string>
#include <vector>

#include "report/html.hpp"
#include "report/record.hpp"
#include "report/verdict.hpp"

namespace mxlm::report {

/// Figures of variant `index` of the run, with errors by cluster (by token in files without errors by cluster). The
/// last three are in percent, in 1/1000 nat a token, and in percent; NaN for the baseline.
ShownFigure ppl_figure(const Run& run, size_t index);
ShownFigure ppl_change_figure(const Run& run, size_t index);
ShownFigure kld_figure(const Run& run, size_t index);
ShownFigure top1_figure(const Run& run, size_t index);
/// The same for the figures of a variant in a subset.
ShownFigure ppl_change_figure(const Source& from, const VariantFigures& figures);
ShownFigure ppl_figure(const Source& from, const VariantFigures& figures);

/// By variant; unknown for the baseline. A change of perplexity within twice its measured rounding noise is noise.
std::vector<Verdict> verdicts(const Run& run);

/// What ± means in a run: "± is one standard error, for other windows of this text, from 42 windows." Contains a string
/// of the file.
std::string error_note(const Run& run);

/// The axis of sizes in plots: mean bits of a weight if the files have them, else megabytes.
enum class SizeAxis : uint8_t { bits, megabytes };
SizeAxis size_axis(const Run& run);
Figure size_figure(const Run& run, size_t index, SizeAxis axis);

/// The variants (1 and up) that no other variant beats, ordered by size: no other has both fewer bits and less KL
/// divergence, nor an equal value of one and a smaller value of the other.
std::vector<size_t> pareto_front(const Run& run, SizeAxis axis);

/// "perplexity" and "PPL"; for protocol `self` "self-perplexity" and "self-PPL".
std::string quantity_name(const Run& run);
std::string short_quantity_name(const Run& run);

/// The page's name of a model, and of variant `index` where only a few words fit.
std::string model_name(const Run& run);
std::string short_name(const Variant& variant, size_t columns);

}  // namespace mxlm::report
