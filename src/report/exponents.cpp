#include "report/exponents.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "base/quote.hpp"
#include "report/digits.hpp"
#include "report/text_layout.hpp"

namespace mxlm {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kBar = 50;         // columns of the longest bar
constexpr size_t kSpark = 24;       // exponents that a Linear's line shows
constexpr double kPerMille = 1000;  // shares have a tenth of a percent

Json histogram(const ExponentHistogram& h) {
  return {{"first", h.first()}, {"counts", h.counts()}, {"zeros", h.zeros()}, {"nonfinite", h.nonfinite()}};
}

int64_t total(const ExponentHistogram& h) {
  const std::vector<int64_t> counts = h.counts();
  return std::accumulate(counts.begin(), counts.end(), h.zeros() + h.nonfinite());
}

int last(const ExponentHistogram& h) { return h.first() + static_cast<int>(h.counts().size()) - 1; }

std::string percent(int64_t count, int64_t of) {
  const double share = of > 0 ? static_cast<double>(count) / static_cast<double>(of) : 0;
  if (count > 0 && share * kPerMille < 0.5) return "<0.1%";
  return fmt::format("{:.1f}%", share * 100);
}

/// The bars of a role, largest exponent first. Values below the `kSpark` largest exponents share one line.
void add_bars(std::string& out, const std::string& role, const ExponentHistogram& h, size_t linears) {
  const int64_t all = total(h);
  out += fmt::format("{}: {} values in {} Linear{}\n", role, count_text(all), linears, linears == 1 ? "" : "s");
  const std::vector<int64_t> counts = h.counts();
  struct Line {
    std::string label;
    int64_t count;
  };
  std::vector<Line> lines;
  const size_t shown = std::min(counts.size(), kSpark);
  for (size_t i = 0; i < shown; ++i) {
    lines.push_back({fmt::format("2^{}", last(h) - static_cast<int>(i)), counts[counts.size() - 1 - i]});
  }
  const int64_t rest = std::accumulate(counts.begin(), counts.end() - static_cast<std::ptrdiff_t>(shown), int64_t{0});
  if (rest > 0) lines.push_back({fmt::format("<2^{}", last(h) - static_cast<int>(shown) + 1), rest});
  if (h.zeros() > 0) lines.push_back({"0", h.zeros()});
  if (h.nonfinite() > 0) lines.push_back({"NaN, Inf", h.nonfinite()});
  int64_t most = 1;
  for (const Line& line : lines) most = std::max(most, line.count);
  for (const Line& line : lines) {
    const auto columns = static_cast<size_t>(
        std::llround(static_cast<double>(kBar) * static_cast<double>(line.count) / static_cast<double>(most)));
    std::string bar;
    for (size_t i = 0; i < columns; ++i) bar += "█";
    out += fmt::format("{:>10} {:>7}", line.label, percent(line.count, all));
    out += (bar.empty() ? "" : "  " + bar) + "\n";
  }
}

/// One column per exponent, from `top` on the left downwards; its height is its share of the most frequent exponent.
std::string spark(const ExponentHistogram& h, int top) {
  static constexpr const char* levels[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const std::vector<int64_t> counts = h.counts();
  const int64_t most = counts.empty() ? 1 : *std::max_element(counts.begin(), counts.end());
  std::string out;
  for (int exponent = top - static_cast<int>(kSpark) + 1; exponent <= top; ++exponent) {
    const int index = exponent - h.first();
    const int64_t count =
        index >= 0 && index < static_cast<int>(counts.size()) ? counts[static_cast<size_t>(index)] : 0;
    constexpr int64_t highest = 7;
    out += count == 0 ? " " : levels[std::min(highest, (count * (highest + 1)) / (most + 1))];
  }
  return out;
}

}  // namespace

nlohmann::ordered_json exponents_json(std::span<const LinearExponents> linears) {
  Json out = Json::array();
  for (const LinearExponents& l : linears) {
    out.push_back({{"tensor", l.tensor},
                   {"role", l.role},
                   {"weight", histogram(l.weight)},
                   {"activation", l.activation ? histogram(*l.activation) : Json(nullptr)}});
  }
  return out;
}

std::string render_exponents(std::span<const LinearExponents> linears) {
  std::vector<std::string> roles;
  for (const LinearExponents& l : linears) {
    if (std::find(roles.begin(), roles.end(), l.role) == roles.end()) roles.push_back(l.role);
  }
  std::string out = "Weights by floor(log2 |x|)\n";
  int top = std::numeric_limits<int>::min();
  for (const std::string& role : roles) {
    ExponentHistogram sum;
    size_t count = 0;
    for (const LinearExponents& l : linears) {
      if (l.role != role) continue;
      sum += l.weight;
      ++count;
    }
    top = std::max(top, last(sum));
    out += '\n';
    add_bars(out, role, sum, count);
  }
  const std::string from = fmt::format("2^{}", top - static_cast<int>(kSpark) + 1), to = fmt::format("2^{}", top);
  out += fmt::format("\n{:<36}  {}{}  {:>7} {:>7}\n", "Linear", from, pad_left(to, kSpark - from.size()), "largest",
                     "zeros");
  for (const LinearExponents& l : linears) {
    std::string name = printable_text(l.tensor);
    constexpr std::string_view suffix = ".weight";
    if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
    out += fmt::format("{}  {}  {:>7} {:>7}\n", pad_right(elide_left(name, 36), 36), spark(l.weight, top),
                       fmt::format("2^{}", last(l.weight)), percent(l.weight.zeros(), total(l.weight)));
  }
  return out;
}

}  // namespace mxlm
