#pragma once

// What a table and a page say of a difference: how large it is, and whether it is more than chance.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mxlm {

/// The chance of a difference beyond two, and beyond three, standard errors of a normal distribution.
inline constexpr double kBorderlineChance = 0.0455002638963584, kSignificantChance = 0.0026997960632602;

/// A difference, its error by cluster, and the number of clusters (0: the error is by token, as in files before 0.2,
/// and the normal distribution is used).
struct Difference {
  double value = 0, error = 0;
  int64_t clusters = 0;
};

/// The probability of a difference of at least this size if there is no effect, by Student's t with C - 1 degrees of
/// freedom. 1 if the difference is 0; NaN if the error is unknown.
double chance_of(const Difference& difference);

/// Holm's correction: the chances that any of several hypotheses without an effect does as well, in the same order. NaN
/// stays NaN and does not count.
std::vector<double> holm(std::span<const double> chances);

/// How far a variant is from the baseline by mean KL divergence, whatever its error.
enum class Size : uint8_t { unknown, rounding, alike, visible, broken };

/// In nats a token: below the first bound a variant is like the baseline, above the second it is broken. These are
/// marks, not laws: in the built-in model, 10 mnats go with 0.7 % more perplexity, and 500 with 40 % or more.
inline constexpr double kAlikeNats = 0.01, kBrokenNats = 0.5;

/// A KL divergence, or a share of changed tokens, up to this multiple of the baseline's own (in another order of
/// float32 sums) is rounding: the variant's products round in yet another way, and the floor is one sample.
inline constexpr double kFloorMargin = 1.5;

/// `floor`: the KL divergence of the baseline from itself in another order of float32 sums, if it was measured.
Size size_of(double kld, std::optional<double> floor);

/// "no more than rounding", "like the baseline", "visible", "broken", "n/a".
const char* size_text(Size size);

/// What is said of a difference.
struct Verdict {
  enum class Kind : uint8_t { unknown, same, borderline, different, noise };
  Kind kind = Kind::unknown;
  double z = 0;       // the difference in its standard errors
  double chance = 1;  // of a difference this large among all differences judged together, without an effect
  Size size = Size::unknown;
};

/// Judges differences together: after Holm's correction, a change is borderline up to kBorderlineChance, and different
/// up to kSignificantChance.
std::vector<Verdict> verdicts(std::span<const Difference> differences);

/// The size, if known, and the chance: "visible, significant", "borderline", "within error", "within noise".
std::string verdict_text(const Verdict& verdict);

/// "+8.1", with at most three digits.
std::string z_text(const Verdict& verdict);

}  // namespace mxlm
