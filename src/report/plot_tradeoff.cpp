#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/plots.hpp"
#include "report/svg.hpp"

namespace mxlm::report {
namespace {

// Sizes of the drawing in its own units (about CSS pixels); the labels below and left of the axes are outside.
constexpr double kWidth = 440, kHeight = 330, kLeft = 54, kRight = 428, kTop = 12, kBottom = 282;
constexpr double kCharacter = 6.6, kLabelHeight = 13;  // of the font of labels
constexpr size_t kMostNamed = 6;                       // with more variants the labels are numbers
constexpr size_t kNameColumns = 18;                    // of a label that is a name
constexpr size_t kMostLabels = 60;  // with more variants only the front is labelled, up to this number

struct Point {
  size_t index = 0;
  Figure size, value;
  double y = 0, low = 0, high = 0;  // the shown value and its error bar
  bool front = false;
};

struct Plot {
  std::string title, y_label, description;
  std::vector<Point> points;
  bool logarithmic = false;
  double floor = 0;  // of a logarithmic axis: smaller values are drawn there
  double reference = std::numeric_limits<double>::quiet_NaN();
  bool front_line = false;
};

/// Slightly more than the range of the values.
Scale make_scale(double low, double high, double from, double to, bool logarithmic) {
  if (logarithmic) {
    const double pad = std::max(1.15, std::pow(high / low, 0.06));
    return {std::max(low / pad, 1e-300), std::min(high * pad, 1e300), from, to, true};
  }
  const double pad = high > low ? (high - low) * 0.07 : std::max(std::abs(high) * 0.1, 1e-6);
  return {low - pad, high + pad, from, to, false};
}

std::string draw_axes(const Scale& x, const Scale& y, const std::string& x_label, const std::string& y_label) {
  std::string out = R"(<g class="axes" aria-hidden="true">)";
  for (const auto& [value, label] : y.ticks(6)) {
    out += fmt::format(R"(<path class="grid" d="M{} {}H{}"/>)", xy(kLeft), xy(y(value)), xy(kRight));
    out += svg_text(kLeft - 6, y(value) + 4, label, "end", "tick");
  }
  for (const auto& [value, label] : x.ticks(6)) {
    out += fmt::format(R"(<path class="grid" d="M{} {}V{}"/>)", xy(x(value)), xy(kTop), xy(kBottom));
    out += svg_text(x(value), kBottom + 16, label, "middle", "tick");
  }
  out += svg_text((kLeft + kRight) / 2, kHeight - 8, x_label, "middle", "label");
  out += fmt::format(R"x(<text transform="translate(12 {}) rotate(-90)" text-anchor="middle" class="label">{}</text>)x",
                     xy((kTop + kBottom) / 2), escape(y_label));
  return out + "</g>";
}

std::string draw(const Run& run, const Plot& plot, const std::string& x_label, const std::string& id) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double x_low = kInfinity, x_high = -kInfinity, y_low = kInfinity, y_high = -kInfinity;
  for (const Point& p : plot.points) {
    x_low = std::min(x_low, p.size.value);
    x_high = std::max(x_high, p.size.value);
    y_low = std::min(y_low, p.low);
    y_high = std::max(y_high, p.high);
  }
  if (std::isfinite(plot.reference)) {
    y_low = std::min(y_low, plot.reference);
    y_high = std::max(y_high, plot.reference);
  }
  const Scale x = make_scale(x_low, x_high, kLeft, kRight, false);
  const Scale y = make_scale(y_low, y_high, kBottom, kTop, plot.logarithmic);

  std::string out = fmt::format(
      "<figure class=\"plot\"><figcaption>{}</figcaption><svg viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-labelledby=\"{}-t {}-d\"><title id=\"{}-t\">{}</title><desc id=\"{}-d\">{}</desc>",
      escape(plot.title), kWidth, kHeight, id, id, id, escape(plot.title), id, escape(plot.description));
  out += draw_axes(x, y, x_label, plot.y_label);
  LabelPlacer placer({kLeft + 1, kTop, kRight - kLeft, kBottom - kTop});
  if (std::isfinite(plot.reference)) {
    const double at = y(plot.reference);
    out += fmt::format(R"(<path class="reference" d="M{} {}H{}"/>)", xy(kLeft), xy(at), xy(kRight));
    const double below = at + kLabelHeight + 2 < kBottom ? at + kLabelHeight : at - 4;
    out += svg_text(kRight - 4, below, "baseline", "end", "tick");
    constexpr double kBaselineWidth = 8 * kCharacter;
    placer.avoid({kRight - 4 - kBaselineWidth, below - 10, kBaselineWidth, kLabelHeight});
    placer.avoid({kLeft, at - 1, kRight - kLeft, 2});
  }
  if (plot.front_line) {
    std::string path;
    double last_x = 0, last_y = 0;
    for (const Point& p : plot.points) {
      if (!p.front) continue;
      const double px = x(p.size.value), py = y(p.y);
      if (!path.empty()) {
        // No label may cover the line.
        placer.avoid({last_x, last_y - 1, px - last_x, 2});
        placer.avoid({px - 1, std::min(py, last_y), 2, std::abs(py - last_y)});
      }
      last_x = px;
      last_y = py;
      path += path.empty() ? fmt::format("M{} {}", xy(px), xy(py)) : fmt::format("H{}V{}", xy(px), xy(py));
    }
    out += fmt::format(R"(<path class="front" d="{}"/>)", path);
  }
  for (const Point& p : plot.points) {
    constexpr double kRadius = 5;
    placer.avoid({x(p.size.value) - kRadius, y(p.y) - kRadius, 2 * kRadius, 2 * kRadius});
  }
  std::string leaders, points, labels;
  size_t labelled = 0;
  for (const Point& p : plot.points) {
    const double px = x(p.size.value), py = y(p.y), top = y(p.high), bottom = y(p.low);
    const Variant& v = run.variants[p.index];
    points += fmt::format(R"(<g{}><title>{}. {}</title>)", attributes(p.value.source, p.value.value), p.index,
                          escape(v.name));
    // A bar that the point would cover is omitted.
    if (bottom - top > 8) {
      points += fmt::format(R"(<path class="bar" d="M{0} {1}V{2}M{3} {1}h6M{3} {2}h6"/>)", xy(px), xy(top), xy(bottom),
                            xy(px - 3));
    }
    points += p.front ? fmt::format(R"(<circle class="on" cx="{}" cy="{}" r="4.5"/></g>)", xy(px), xy(py))
                      : fmt::format(R"(<circle class="off" cx="{}" cy="{}" r="4"/></g>)", xy(px), xy(py));
    if ((plot.points.size() > kMostLabels && !p.front) || labelled == kMostLabels) continue;
    ++labelled;
    const std::string label =
        run.variants.size() - 1 > kMostNamed ? std::to_string(p.index) : short_name(v, kNameColumns);
    const auto columns =
        static_cast<double>(std::count_if(label.begin(), label.end(), [](char c) { return (c & 0xC0) != 0x80; }));
    const auto place = placer.place(px, py, columns * kCharacter + 2, kLabelHeight);
    if (!place) continue;
    const double lx = place->box.x + place->box.width / 2, ly = place->box.y + place->box.height / 2;
    if (place->leader) {
      // The line goes to the side of the label that is nearest to the point.
      const double end_x = std::clamp(px, place->box.x, place->box.x + place->box.width);
      const double end_y = std::clamp(py, place->box.y + 1, place->box.y + place->box.height - 1);
      leaders += fmt::format(R"(<path class="leader" d="M{} {}L{} {}"/>)", xy(px), xy(py), xy(end_x), xy(end_y));
    }
    labels += svg_text(lx, ly + 4, label, "middle", p.front ? "name strong" : "name");
  }
  return out + leaders + points + labels + "</svg></figure>\n";
}

}  // namespace

std::string tradeoff_plots(const Run& run) {
  const SizeAxis axis = size_axis(run);
  std::vector<char> on_front(run.variants.size(), 0);
  for (const size_t i : pareto_front(run, axis)) on_front[i] = 1;
  Plot kld, ppl;
  for (size_t i = 1; i < run.variants.size(); ++i) {
    Point point;
    point.index = i;
    point.size = size_figure(run, i, axis);
    point.front = on_front[i] != 0;
    const auto set = [&](const ShownFigure& shown) {
      point.value = shown.value;
      point.y = shown.value.value * shown.scale + shown.offset;
      const double error = shown.error.value * shown.error_scale;
      point.low = point.y - (std::isfinite(error) ? error : 0);
      point.high = point.y + (std::isfinite(error) ? error : 0);
      return std::isfinite(point.size.value) && std::isfinite(point.high) && std::abs(point.high) < 1e15 &&
             std::isfinite(point.low);
    };
    if (set(kld_figure(run, i))) kld.points.push_back(point);
    // The error of the paired difference, around a baseline taken as known.
    ShownFigure paired = ppl_change_figure(run, i);
    const double ppl_scale = run.variants[0].figures.ppl;
    const ShownFigure shown{
        .value = ppl_figure(run, i).value, .error = paired.error, .error_scale = paired.error_scale / 100 * ppl_scale};
    if (set(shown)) ppl.points.push_back(point);
  }
  if (ppl.points.empty()) return {};
  const auto by_size = [](const Point& a, const Point& b) { return a.size.value < b.size.value; };
  std::stable_sort(kld.points.begin(), kld.points.end(), by_size);
  std::stable_sort(ppl.points.begin(), ppl.points.end(), by_size);
  const std::string x_label = axis == SizeAxis::bits ? "bits a weight" : "weights, MB";

  std::string out = "<div class=\"plots\">\n";
  std::erase_if(kld.points, [](const Point& p) { return !(p.y > 0); });
  if (!kld.points.empty()) {
    kld.logarithmic = true;
    double least = std::numeric_limits<double>::infinity();
    for (const Point& p : kld.points) least = std::min(least, p.y);
    // An error bar that reaches 0 ends at the axis.
    for (Point& p : kld.points) p.low = std::max(p.low, least / 2);
    kld.front_line = true;
    kld.title = "KL divergence against the size of the weights";
    kld.y_label = "KL divergence, mnats a token (log)";
    kld.description =
        "Each point is a variant; filled ones have the least KL divergence at their size. The table has the figures.";
    out += draw(run, kld, x_label, fmt::format("kld-{}-{}", run.file, run.index));
  }
  double most = 0, least = std::numeric_limits<double>::infinity();
  for (const Point& p : ppl.points) {
    most = std::max(most, p.high);
    least = std::min(least, p.y);
  }
  ppl.reference = run.variants[0].figures.ppl;
  ppl.logarithmic = std::isfinite(ppl.reference) && ppl.reference > 0 && most > 2 * ppl.reference && least > 0;
  if (ppl.logarithmic) {
    for (Point& p : ppl.points) p.low = std::max(p.low, std::min(least, ppl.reference) / 2);
  }
  const std::string quantity = quantity_name(run);
  ppl.title = fmt::format("{} against the size of the weights",
                          run.variants[0].figures.self ? "Self-perplexity" : "Perplexity");
  ppl.y_label = ppl.logarithmic ? quantity + " (log)" : quantity;
  ppl.description =
      "Each point is a variant, with the error of its paired difference from the baseline, which is the dashed line. "
      "The table has the figures.";
  out += draw(run, ppl, x_label, fmt::format("ppl-{}-{}", run.file, run.index));
  return out + "</div>\n";
}

}  // namespace mxlm::report
