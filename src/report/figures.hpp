#pragma once

// What the figures of a variant mean: their errors, and whether a change is more than these.

#include <string>

#include "report/html.hpp"
#include "report/record.hpp"

namespace mxlm::report {

/// Of variant `index` of the run; errors are the larger of the statistical one and the measured noise. The last three
/// are in percent, in 1/1000 nat a token, and in percent; NaN for the baseline.
ShownFigure ppl_figure(const Run& run, size_t index);
ShownFigure ppl_change_figure(const Run& run, size_t index);
ShownFigure kld_figure(const Run& run, size_t index);
ShownFigure top1_figure(const Run& run, size_t index);
/// The same for the figures that a subset has of a variant.
ShownFigure ppl_change_figure(const Source& from, const VariantFigures& figures);
ShownFigure ppl_figure(const Source& from, const VariantFigures& figures);

/// Whether perplexity really changed.
struct Verdict {
  enum class Kind : uint8_t { unknown, same, borderline, different, noise };
  Kind kind = Kind::unknown;
  double z = 0;  // ln(PPL ratio) in standard errors of the paired difference
};
/// Beyond two standard errors a change is borderline, beyond three different (by chance one of 370 is); a change that
/// is no larger than the measured rounding noise is noise.
inline constexpr double kBorderline = 2, kDifferent = 3;
Verdict verdict(double ln_ratio, double error, double noise);
Verdict verdict(const Variant& variant);
/// "significant", "borderline", "within error", "within noise", "n/a".
const char* verdict_text(const Verdict& verdict);
/// "+8.1", with three digits at most.
std::string z_text(const Verdict& verdict);

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
