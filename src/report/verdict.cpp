#include "report/verdict.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "statistics/student_t.hpp"

namespace mxlm {

double chance_of(const Difference& difference) {
  if (difference.value == 0) return 1;
  if (!std::isfinite(difference.value) || !std::isfinite(difference.error)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double size = std::abs(difference.value) / difference.error;  // infinite if the error is 0
  return difference.clusters == 0 ? normal_p(size) : student_p(size, static_cast<double>(difference.clusters - 1));
}

std::vector<double> holm(std::span<const double> chances) {
  std::vector<size_t> order;
  for (size_t i = 0; i < chances.size(); ++i) {
    if (std::isfinite(chances[i])) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return chances[a] < chances[b]; });
  std::vector<double> out(chances.begin(), chances.end());
  double largest = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, std::min(1.0, chances[order[i]] * static_cast<double>(order.size() - i)));
    out[order[i]] = largest;
  }
  return out;
}

Size size_of(double kld, std::optional<double> floor) {
  if (!std::isfinite(kld)) return Size::unknown;
  if (floor && kld <= kFloorMargin * *floor) return Size::rounding;
  return kld < kAlikeNats ? Size::alike : kld > kBrokenNats ? Size::broken : Size::visible;
}

const char* size_text(Size size) {
  switch (size) {
    case Size::unknown:
      return "n/a";
    case Size::rounding:
      return "no more than rounding";
    case Size::alike:
      return "like the baseline";
    case Size::visible:
      return "visible";
    case Size::broken:
      return "broken";
  }
  return "n/a";
}

namespace {

Verdict::Kind kind_of(double value, double chance) {
  if (!std::isfinite(chance)) return Verdict::Kind::unknown;
  if (value == 0 || chance > kBorderlineChance) return Verdict::Kind::same;
  return chance > kSignificantChance ? Verdict::Kind::borderline : Verdict::Kind::different;
}

}  // namespace

std::vector<Verdict> verdicts(std::span<const Difference> differences) {
  std::vector<double> chances;
  chances.reserve(differences.size());
  for (const Difference& d : differences) chances.push_back(chance_of(d));
  chances = holm(chances);
  std::vector<Verdict> out;
  out.reserve(differences.size());
  for (size_t i = 0; i < differences.size(); ++i) {
    const Difference& d = differences[i];
    // Infinite if the error is 0: no cluster contradicts the difference.
    out.push_back(
        {.kind = kind_of(d.value, chances[i]), .z = d.value == 0 ? 0 : d.value / d.error, .chance = chances[i]});
  }
  return out;
}

std::string verdict_text(const Verdict& verdict) {
  const char* chance = "n/a";
  switch (verdict.kind) {
    case Verdict::Kind::unknown:
      break;
    case Verdict::Kind::same:
      chance = "within error";
      break;
    case Verdict::Kind::borderline:
      chance = "borderline";
      break;
    case Verdict::Kind::different:
      chance = "significant";
      break;
    case Verdict::Kind::noise:
      chance = "within noise";
      break;
  }
  return verdict.size == Size::unknown ? chance : fmt::format("{}, {}", size_text(verdict.size), chance);
}

std::string z_text(const Verdict& verdict) {
  if (verdict.kind == Verdict::Kind::unknown) return "n/a";
  if (std::isinf(verdict.z)) return verdict.z > 0 ? "∞" : "-∞";
  const double size = std::abs(verdict.z);
  return size < 10    ? fmt::format("{:+.1f}", verdict.z)
         : size < 1e6 ? fmt::format("{:+.0f}", verdict.z)
                      : fmt::format("{:+.1e}", verdict.z);
}

}  // namespace mxlm
