#pragma once

// Scales, ticks and labels of the plots.

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mxlm::report {

/// Text on a plot, escaped. `anchor` is start, middle or end.
std::string svg_text(double x, double y, const std::string& text, const char* anchor, const char* classes);

/// A coordinate with one decimal.
std::string xy(double value);

/// Maps values to coordinates, linearly or by logarithm.
class Scale {
 public:
  /// Maps `low` to `high` (both finite, low < high, low > 0 if logarithmic) to the coordinates `from` to `to`.
  Scale(double low, double high, double from, double to, bool logarithmic);
  /// The coordinate of `value`, clamped to the ends of the scale.
  [[nodiscard]] double operator()(double value) const;
  /// Round values with their labels, at most about `most` of them.
  [[nodiscard]] std::vector<std::pair<double, std::string>> ticks(size_t most) const;

 private:
  double low_, high_, from_, to_;
  bool logarithmic_;
};

struct Box {
  double x = 0, y = 0, width = 0, height = 0;
  [[nodiscard]] bool overlaps(const Box& other) const;
  /// True if the line between two points meets the box.
  [[nodiscard]] bool meets(double x1, double y1, double x2, double y2) const;
};

/// Finds a place for each label, so that no label covers another label or a point, or leaves the plot.
class LabelPlacer {
 public:
  explicit LabelPlacer(Box area) : area_(area) {}
  /// An area that no label may cover.
  void avoid(const Box& box) { taken_.push_back(box); }
  struct Place {
    Box box;
    bool leader = false;  // so far from its point that a line must connect them
  };
  /// The nearest free place for a label of this size beside the point; nullopt if there is none.
  std::optional<Place> place(double x, double y, double width, double height);

 private:
  Box area_;
  std::vector<Box> taken_, labels_;
};

}  // namespace mxlm::report
