#include "report/svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <numbers>

#include "report/html.hpp"

namespace mxlm::report {
namespace {

/// The value of a tick without needless digits: "0.05", "20", "1,000", "1e+20".
std::string tick_label(double value, int exponent) {
  if (std::abs(value) >= 1e7 || (value != 0 && std::abs(value) < 1e-5)) return with_minus(fmt::format("{:.3g}", value));
  std::string text = fmt::format("{:.{}f}", value, exponent < 0 ? std::min(-exponent, 12) : 0);
  if (text.find_first_of("123456789") == std::string::npos) return "0";
  if (exponent >= 0) text = count_text(std::llround(value));
  return with_minus(text);
}

}  // namespace

std::string xy(double value) { return fmt::format("{:.1f}", value); }

std::string svg_text(double x, double y, const std::string& text, const char* anchor, const char* classes) {
  return fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>)", x, y, anchor, classes,
                     escape(text));
}

Scale::Scale(double low, double high, double from, double to, bool logarithmic)
    : low_(low), high_(high), from_(from), to_(to), logarithmic_(logarithmic) {}

double Scale::operator()(double value) const {
  const double cut = std::isfinite(value) ? std::clamp(value, low_, high_) : low_;
  const auto distance = [this](double x) {
    if (!logarithmic_) return x - low_;
    const double ratio = x / low_;  // exact if the two are close, infinite if they are very far apart
    return std::isfinite(ratio) ? std::log(ratio) : std::log(x) - std::log(low_);
  };
  return from_ + distance(cut) / distance(high_) * (to_ - from_);
}

std::vector<std::pair<double, std::string>> Scale::ticks(size_t most) const {
  std::vector<std::pair<double, std::string>> out;
  const auto count = static_cast<double>(most);
  if (logarithmic_) {
    const int first = static_cast<int>(std::floor(std::log10(low_))),
              last = static_cast<int>(std::ceil(std::log10(high_)));
    // All of 1, 2, 5 if those are not too many; else powers of ten, or every n-th power.
    for (const std::vector<int>& digits : {std::vector<int>{1, 2, 5}, {1, 3}, {1}}) {
      for (int every = 1;; every *= 2) {
        out.clear();
        for (int exponent = first; exponent <= last; ++exponent) {
          if (exponent % every != 0) continue;
          for (const int digit : digits) {
            const double value = digit * std::pow(10.0, exponent);
            if (value >= low_ * (1 - 1e-9) && value <= high_ * (1 + 1e-9))
              out.emplace_back(value, tick_label(value, exponent));
          }
        }
        if (out.size() <= most || digits.size() > 1) break;
      }
      if (out.size() <= most) break;
    }
    if (out.size() >= 2) return out;
    out.clear();  // less than a decade: as a linear scale
  }
  const double rough = (high_ - low_) / count;
  int exponent = static_cast<int>(std::floor(std::log10(rough)));
  double step = 0;
  for (const double digit : {1.0, 2.0, 5.0, 10.0}) {
    step = digit * std::pow(10.0, exponent);
    if (digit == 10.0) ++exponent;
    if (step >= rough) break;
  }
  const double begin = std::ceil(low_ / step - 1e-9);
  for (size_t i = 0; i <= most; ++i) {
    const double value = (begin + static_cast<double>(i)) * step;
    if (!(value <= high_ + step * 1e-9)) break;
    out.emplace_back(value, tick_label(value, exponent));
  }
  return out;
}

bool Box::overlaps(const Box& other) const {
  return x < other.x + other.width && other.x < x + width && y < other.y + other.height && other.y < y + height;
}

bool Box::meets(double x1, double y1, double x2, double y2) const {
  // Liang and Barsky's clipping: is a part of the line left inside?
  double begin = 0, end = 1;
  const std::array<std::pair<double, double>, 4> sides{
      {{x1 - x2, x1 - x}, {x2 - x1, x + width - x1}, {y1 - y2, y1 - y}, {y2 - y1, y + height - y1}}};
  for (const auto& [p, q] : sides) {
    if (p == 0) {
      if (q < 0) return false;
    } else if (p < 0) {
      begin = std::max(begin, q / p);
    } else {
      end = std::min(end, q / p);
    }
  }
  return begin <= end;
}

std::optional<LabelPlacer::Place> LabelPlacer::place(double x, double y, double width, double height) {
  constexpr double kBeside = 7, kStep = 5, kFurthest = 200, kLeader = 14;
  constexpr int kDirections = 16;
  const auto free = [&](const Box& box) {
    if (box.x < area_.x || box.y < area_.y || box.x + box.width > area_.x + area_.width ||
        box.y + box.height > area_.y + area_.height) {
      return false;
    }
    const auto hit = [&](const Box& other) { return box.overlaps(other); };
    return std::none_of(taken_.begin(), taken_.end(), hit) && std::none_of(labels_.begin(), labels_.end(), hit);
  };
  // A line through another label is better than no label.
  for (const bool may_cross : {false, true}) {
    for (double distance = kBeside; distance <= kFurthest; distance += kStep) {
      for (int i = 0; i < kDirections; ++i) {
        // Right first, then left, then positions between them.
        const int turn = i % 2 == 0 ? i / 2 : kDirections / 2 + i / 2;
        const double angle = 2 * std::numbers::pi * turn / kDirections;
        const double center_x = x + std::cos(angle) * (distance + width / 2);
        const double center_y = y - std::sin(angle) * (distance + height / 2);
        const Box box{center_x - width / 2, center_y - height / 2, width, height};
        const auto crossed = [&](const Box& label) { return label.meets(x, y, center_x, center_y); };
        const bool leader = distance > kLeader;
        if (!free(box) || (leader && !may_cross && std::any_of(labels_.begin(), labels_.end(), crossed))) continue;
        labels_.push_back(box);
        return Place{box, leader};
      }
    }
  }
  return std::nullopt;
}

}  // namespace mxlm::report
