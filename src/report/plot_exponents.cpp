#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "report/plots.hpp"
#include "report/svg.hpp"

namespace mxlm::report {
namespace {

constexpr size_t kMostTensors = 2000;  // rows of the table
constexpr double kLeast = 1e-7;        // the smallest share that is drawn

/// The counts of several tensors by exponent.
struct Sum {
  std::map<int64_t, double> counts;
  double zeros = 0;
  size_t tensors = 0;

  void add(const Exponents& e) {
    for (size_t i = 0; i < e.counts.size(); ++i) {
      if (e.counts[i] > 0) counts[e.first + static_cast<int64_t>(i)] += static_cast<double>(e.counts[i]);
    }
    zeros += static_cast<double>(e.zeros);
    ++tensors;
  }
  [[nodiscard]] double total() const {
    double out = zeros;
    for (const auto& [exponent, count] : counts) out += count;
    return out;
  }
};

struct Role {
  Sum weight, activation;
};

/// The outline of a histogram: one step per exponent, down to the axis at both ends and at empty exponents.
std::string outline(const Sum& sum, const Scale& x, const Scale& y, bool closed) {
  const double total = sum.total(), base = y(kLeast);
  std::string path;
  int64_t last = 0;
  for (const auto& [exponent, count] : sum.counts) {
    const double left = x(static_cast<double>(exponent) - 0.5), right = x(static_cast<double>(exponent) + 0.5);
    if (path.empty() || exponent != last + 1) {
      if (!path.empty()) path += fmt::format("V{}{}", xy(base), closed ? "Z" : "");
      path += fmt::format("M{} {}", xy(left), xy(base));
    }
    path += fmt::format("V{}H{}", xy(y(std::max(count / total, kLeast))), xy(right));
    last = exponent;
  }
  return path + fmt::format("V{}{}", xy(base), closed ? "Z" : "");
}

std::string draw(const std::string& role, const Role& sums, int64_t low, int64_t high, const std::string& id) {
  constexpr double kWidth = 400, kHeight = 210, kLeft = 48, kRight = 392, kTop = 10, kBottom = 168;
  const Scale x(static_cast<double>(low) - 0.5, static_cast<double>(high) + 0.5, kLeft, kRight, false);
  const Scale y(kLeast, 1, kBottom, kTop, true);
  std::string out = fmt::format(
      "<figure class=\"plot\"><figcaption>{0}</figcaption><svg viewBox=\"0 0 {1} {2}\" role=\"img\" "
      "aria-labelledby=\"{3}\"><title id=\"{3}\">Share of elements by binary exponent, {0}; a table follows</title>",
      escape(role.empty() ? "(no role)" : role), kWidth, kHeight, id);
  for (const auto& [value, label] : y.ticks(5)) {
    out += fmt::format(R"(<path class="grid" d="M{} {}H{}"/>)", xy(kLeft), xy(y(value)), xy(kRight));
    const auto exponent = static_cast<int>(std::lround(std::log10(value)));
    out += svg_text(kLeft - 6, y(value) + 4, exponent == 0 ? "1" : with_minus(fmt::format("1e{}", exponent)), "end",
                    "tick");
  }
  for (const auto& [value, label] : x.ticks(7)) {
    if (value != std::floor(value)) continue;
    out += svg_text(x(value), kBottom + 16, label, "middle", "tick");
  }
  out += svg_text((kLeft + kRight) / 2, kHeight - 8, "floor(log2 |x|)", "middle", "label");
  if (!sums.weight.counts.empty()) {
    out += fmt::format(R"(<path class="weights" d="{}"/>)", outline(sums.weight, x, y, true));
  }
  if (!sums.activation.counts.empty()) {
    out += fmt::format(R"(<path class="activations" d="{}"/>)", outline(sums.activation, x, y, false));
  }
  return out + "</svg></figure>\n";
}

std::string side_row(const TensorExponents& tensor, const char* side, const std::optional<Exponents>& e,
                     const Source& from) {
  if (!e) return {};
  int64_t total = e->zeros;
  size_t first = e->counts.size(), last = 0, most = 0;
  for (size_t i = 0; i < e->counts.size(); ++i) {
    total += e->counts[i];
    if (e->counts[i] == 0) continue;
    first = std::min(first, i);
    last = i;
    if (e->counts[i] > e->counts[most]) most = i;
  }
  std::string out = fmt::format("<tr><td class=\"mono\">{}</td><td>{}</td><td>{}</td>", escape(tensor.tensor),
                                escape(tensor.role), side);
  out += fmt::format(R"(<td class="n">{}</td>)", count_text(total));
  out += figure_cell({from / "zeros", static_cast<double>(e->zeros)}, count_text(e->zeros));
  if (first == e->counts.size()) return out + empty_cell(3) + "</tr>\n";
  for (const size_t i : {first, most, last}) {
    out += fmt::format(R"(<td class="n">{}</td>)", with_minus(std::to_string(e->first + static_cast<int64_t>(i))));
  }
  return out + "</tr>\n";
}

}  // namespace

std::string exponent_histograms(const Run& run) {
  if (run.exponents.empty()) return {};
  std::map<std::string, Role> roles;
  for (const TensorExponents& tensor : run.exponents) {
    Role& role = roles[tensor.role];
    if (tensor.weight) role.weight.add(*tensor.weight);
    if (tensor.activation) role.activation.add(*tensor.activation);
  }
  int64_t low = 0, high = 0;
  bool any = false;
  for (const auto& [name, role] : roles) {
    for (const Sum* sum : {&role.weight, &role.activation}) {
      if (sum->counts.empty()) continue;
      low = any ? std::min(low, sum->counts.begin()->first) : sum->counts.begin()->first;
      high = any ? std::max(high, sum->counts.rbegin()->first) : sum->counts.rbegin()->first;
      any = true;
    }
  }
  std::string out =
      "<p class=\"note\">How large the elements are that the formats have to hold: the share of them by binary "
      "exponent, on a logarithmic axis. Zeros are apart, in the table.</p>\n"
      "<p class=\"key\"><svg width=\"22\" height=\"12\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path "
      "class=\"weights\" d=\"M1 1H21V11H1Z\"/></svg><span>weights</span><svg width=\"22\" height=\"12\" viewBox=\"0 0 "
      "22 "
      "12\" aria-hidden=\"true\"><path class=\"activations\" d=\"M1 6H21\"/></svg><span>activations</span></p>\n";
  constexpr size_t kMostPlots = 12;
  if (any) {
    out += "<div class=\"plots\">\n";
    size_t index = 0;
    for (const auto& [name, role] : roles) {
      if (role.weight.counts.empty() && role.activation.counts.empty()) continue;
      if (index == kMostPlots) break;
      out += draw(name, role, low, high, fmt::format("exp-{}-{}-{}", run.file, run.index, index++));
    }
    out += "</div>\n";
  }
  std::string table = table_open("Exponents by tensor", {{.label = "Tensor", .number = false},
                                                         {.label = "Role", .number = false},
                                                         {.label = "Side", .number = false},
                                                         {.label = "Elements"},
                                                         {.label = "Zeros"},
                                                         {.label = "Lowest", .title = "smallest exponent"},
                                                         {.label = "Most", .title = "most frequent exponent"},
                                                         {.label = "Highest", .title = "largest exponent"}});
  for (size_t i = 0; i < std::min(run.exponents.size(), kMostTensors); ++i) {
    const TensorExponents& tensor = run.exponents[i];
    const Source from = source(run) / "exponents" / i;
    table += side_row(tensor, "weights", tensor.weight, from / "weight");
    table += side_row(tensor, "activations", tensor.activation, from / "activation");
  }
  table += table_close();
  if (run.exponents.size() > kMostTensors) {
    table += fmt::format("<p class=\"note\">The first {} tensors; the JSON has all.</p>", count_text(kMostTensors));
  }
  return out +
         details(fmt::format("Exponents of {}", plural(static_cast<int64_t>(run.exponents.size()), "tensor")), table);
}

}  // namespace mxlm::report
