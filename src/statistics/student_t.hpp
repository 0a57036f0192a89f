#pragma once

namespace mxlm {

/// Student's t distribution: the probability that |t| is at least `size` >= 0 with `degrees` > 0 degrees of freedom,
/// to nine digits. NaN for what is not defined.
double student_p(double size, double degrees);

/// The same of the normal distribution.
double normal_p(double size);

}  // namespace mxlm
