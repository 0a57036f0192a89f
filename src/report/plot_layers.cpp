#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "report/plots.hpp"
#include "report/svg.hpp"

namespace mxlm::report {
namespace {

constexpr int kShades = 9;
constexpr size_t kMostRows = 64;
constexpr size_t kMostSteps = 512;

using Step = std::pair<int64_t, std::string>;

/// Attention comes before the MLP, everything else after both.
int part_rank(const std::string& part) { return part == "attention" ? 0 : part == "mlp" ? 1 : 2; }
struct StepLess {
  bool operator()(const Step& a, const Step& b) const {
    return std::tuple(a.first, part_rank(a.second), a.second) < std::tuple(b.first, part_rank(b.second), b.second);
  }
};

/// The variants with layers; if they are too many, those with the largest KL divergence, in their order.
std::vector<size_t> chosen_rows(const Run& run) {
  std::vector<size_t> rows;
  for (size_t v = 1; v < run.variants.size(); ++v) {
    if (!run.variants[v].layers.empty()) rows.push_back(v);
  }
  if (rows.size() <= kMostRows) return rows;
  const auto kld = [&](size_t v) {
    const double value = kld_figure(run, v).value.value;
    return std::isfinite(value) ? value : std::numeric_limits<double>::infinity();
  };
  std::stable_sort(rows.begin(), rows.end(), [&](size_t a, size_t b) { return kld(a) > kld(b); });
  rows.resize(kMostRows);
  std::sort(rows.begin(), rows.end());
  return rows;
}

std::string sqnr_text(const LayerError& error) {
  if (std::isfinite(error.sqnr_db)) return with_minus(decimal_text(error.sqnr_db, 1));
  return error.cosine == 1 ? "exact" : "n/a";
}

}  // namespace

std::string layer_heat_map(const Run& run) {
  const std::vector<size_t> rows = chosen_rows(run);
  if (rows.empty()) return {};
  std::set<Step, StepLess> steps;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const size_t v : rows) {
    for (const LayerError& error : run.variants[v].layers) {
      if (steps.size() < kMostSteps) steps.emplace(error.layer, error.part);
      if (!std::isfinite(error.sqnr_db)) continue;
      low = std::min(low, error.sqnr_db);
      high = std::max(high, error.sqnr_db);
    }
  }
  std::map<Step, size_t, StepLess> place;
  for (const Step& step : steps) place.emplace(step, place.size());
  std::set<std::string> parts;
  for (const Step& step : steps) parts.insert(step.second);

  constexpr double kLabels = 222, kRow = 20, kTop = 22;
  const auto columns = static_cast<double>(place.size());
  const double cell = std::clamp(760 / columns, 7.0, 44.0);
  const double width = kLabels + cell * columns + 2, height = kTop + kRow * static_cast<double>(rows.size()) + 2;
  const std::string id = fmt::format("layers-{}-{}", run.file, run.index);
  std::string svg = fmt::format(
      "<svg width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" "
      "aria-labelledby=\"{2}-t\">"
      "<title id=\"{2}-t\">Error of the hidden state after each layer, by variant; a table of the figures "
      "follows</title>",
      width, height, id);
  // A number above the first step of a layer, if there is room.
  int64_t last_layer = -1;
  double free_from = 0;
  for (const auto& [step, column] : place) {
    const double x = kLabels + cell * static_cast<double>(column);
    if (step.first == last_layer) continue;
    last_layer = step.first;
    const std::string label = std::to_string(step.first);
    const double taken = 8.0 * static_cast<double>(label.size());
    if (x < free_from || x + taken > width) continue;
    svg += svg_text(x + 1, kTop - 7, label, "start", "tick");
    free_from = x + taken + 10;
  }
  const double range = high > low ? high - low : 1;
  for (size_t row = 0; row < rows.size(); ++row) {
    const size_t v = rows[row];
    const double y = kTop + kRow * static_cast<double>(row);
    const Variant& variant = run.variants[v];
    svg += svg_text(0, y + kRow - 6, fmt::format("{}  {}", v, short_name(variant, 26)), "start", "tick");
    for (size_t l = 0; l < variant.layers.size(); ++l) {
      const LayerError& error = variant.layers[l];
      const auto found = place.find({error.layer, error.part});
      if (found == place.end()) continue;
      // The darkest shade (in dark mode the brightest) has the largest error, which is the lowest ratio.
      const double share = std::isfinite(error.sqnr_db) ? (high - error.sqnr_db) / range : 0;
      const std::string shade = std::isfinite(error.sqnr_db)
                                    ? fmt::format("s{}", std::min(kShades - 1, static_cast<int>(share * kShades)))
                                    : "none";
      svg += fmt::format(
          R"(<rect class="{}" x="{:.1f}" y="{:.0f}" width="{:.1f}" height="{:.0f}"{}><title>{}</title></rect>)", shade,
          kLabels + cell * static_cast<double>(found->second), y, cell - 1, kRow - 1,
          attributes(source(run) / "variants" / v / "layers" / l / "sqnr_db", error.sqnr_db),
          escape(fmt::format("{}, layer {} {}: {} dB", short_name(variant, 40), error.layer, error.part,
                             sqnr_text(error))));
    }
  }
  svg += "</svg>";

  std::string key = "<p class=\"key\"><span>";
  key += std::isfinite(high) ? with_minus(decimal_text(high, 0) + " dB") : "";
  key += "</span><svg width=\"162\" height=\"14\" viewBox=\"0 0 162 14\" aria-hidden=\"true\">";
  for (int i = 0; i < kShades; ++i)
    key += fmt::format(R"(<rect class="s{}" x="{}" y="0" width="17" height="14"/>)", i, 18 * i);
  key += "</svg><span>";
  key += std::isfinite(low) ? with_minus(decimal_text(low, 0) + " dB") : "";
  key += " (largest error)</span></p>";

  std::string note = "Signal-to-noise ratio of the hidden state against the baseline's after each step";
  if (parts.size() > 1) note += ": attention, then MLP, a layer";
  note += ". 20 dB is an error of a tenth.";
  size_t with_layers = 0;
  for (const Variant& v : run.variants) with_layers += v.layers.empty() ? 0 : 1;
  if (rows.size() < with_layers)
    note += fmt::format(" The {} variants with the largest KL divergence; the JSON has all.", rows.size());
  if (steps.size() == kMostSteps) note += fmt::format(" The first {} steps; the JSON has all.", kMostSteps);

  std::vector<Column> heads{{.label = "Layer"}, {.label = "After", .title = {}, .columns = 1, .number = false}};
  for (const size_t v : rows) {
    heads.push_back(
        {.label = fmt::format("{} {}", v, escape(short_name(run.variants[v], 15))), .title = run.variants[v].name});
  }
  std::string table = table_open("Signal-to-noise ratio after each step, dB", heads);
  std::vector<std::vector<std::string>> cells(place.size(), std::vector<std::string>(rows.size(), empty_cell()));
  for (size_t row = 0; row < rows.size(); ++row) {
    const std::vector<LayerError>& layers = run.variants[rows[row]].layers;
    for (size_t l = 0; l < layers.size(); ++l) {
      const auto found = place.find({layers[l].layer, layers[l].part});
      if (found == place.end()) continue;
      const Source from = source(run) / "variants" / rows[row] / "layers" / l / "sqnr_db";
      cells[found->second][row] = figure_cell({from, layers[l].sqnr_db}, sqnr_text(layers[l]));
    }
  }
  for (const auto& [step, column] : place) {
    table += fmt::format(R"(<tr><td class="n">{}</td><td>{}</td>)", step.first, escape(step.second));
    for (const std::string& one : cells[column]) table += one;
    table += "</tr>\n";
  }
  table += table_close();
  return fmt::format(
             "<p class=\"note\">{}</p><figure class=\"heat\">{}<div class=\"scroll\" tabindex=\"0\" role=\"region\" "
             "aria-label=\"Error by layer\">{}</div></figure>\n",
             escape(note), key, svg) +
         details("The figures as a table", table);
}

}  // namespace mxlm::report
