#pragma once

// What is said of a difference: how large it is, and whether it is more than chance. The table and the page both ask
// here.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mxlm {

/// Chance of a difference beyond two, and beyond three, standard errors of a normal distribution.
inline constexpr double kBorderlineChance = 0.0455002638963584, kSignificantChance = 0.0026997960632602;

/// A difference, its error by cluster, and the number of clusters (0: the error is one by token, as files before 0.2
/// have it, and the normal distribution is used).
struct Difference {
  double value = 0, error = 0;
  int64_t clusters = 0;
};

/// The probability of a difference of at least this size where there is none, by Student's t with C - 1 degrees of
/// freedom. 1 for no difference at all; NaN where the error is not known.
double chance_of(const Difference& difference);

/// Holm's correction: the chances that any of several hypotheses without an effect does as well, in the same order. NaN
/// stays NaN and counts for nothing.
std::vector<double> holm(std::span<const double> chances);

/// How far a variant is from the baseline by mean KL divergence, whatever its error.
enum class Size : uint8_t { unknown, rounding, alike, visible, broken };

/// Below the first, in nats a token, a variant is like the baseline, above the second it is broken. Marks, not laws: of
/// the built-in model 10 mnats go with 0.7 % more perplexity, 500 with 40 % or more.
inline constexpr double kAlikeNats = 0.01, kBrokenNats = 0.5;

/// Up to so many times what the baseline has against itself in another order of float32 sums, a variant's KL divergence
/// or share of changed tokens is rounding: its products round in another way again, and the floor is one draw.
inline constexpr double kFloorMargin = 1.5;

/// `floor`: KL divergence of the baseline from itself in another order of float32 sums, where it was measured.
Size size_of(double kld, std::optional<double> floor);

/// "no more than rounding", "like the baseline", "visible", "broken", "n/a".
const char* size_text(Size size);

/// What is said of a difference.
struct Verdict {
  enum class Kind : uint8_t { unknown, same, borderline, different, noise };
  Kind kind = Kind::unknown;
  double z = 0;       // the difference in its standard errors
  double chance = 1;  // of as much in any of the differences judged together, where there is none
  Size size = Size::unknown;
};

/// Judges differences together: up to kBorderlineChance after Holm's correction a change is borderline, up to
/// kSignificantChance different.
std::vector<Verdict> verdicts(std::span<const Difference> differences);

/// The size, where it is known, and the chance: "visible, significant", "borderline", "within error", "within noise".
std::string verdict_text(const Verdict& verdict);

/// "+8.1", with three digits at most.
std::string z_text(const Verdict& verdict);

}  // namespace mxlm
