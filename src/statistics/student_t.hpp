#pragma once

// Two-sided probabilities of Student's t distribution and of the normal distribution, for p-values.

namespace mxlm {

/// The probability that |t| is at least `size` >= 0 for Student's t distribution with `degrees` > 0 degrees of freedom,
/// to nine digits. NaN for other arguments.
double student_p(double size, double degrees);

/// The probability that |x| is at least `size` for the standard normal distribution.
double normal_p(double size);

}  // namespace mxlm
