#include "report/per_token.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace mxlm {

namespace {

bool measures_jensen_shannon(std::span<const std::vector<WindowScores>> scores) {
  if (scores.size() < 2) return false;
  return std::any_of(scores[1].begin(), scores[1].end(), [](const WindowScores& window) {
    return !window.tokens.empty() && !std::isnan(window.tokens[0].jensen_shannon);
  });
}

}  // namespace

void write_per_token_csv(OutputFile& file, std::span<const Variant> variants, std::span<const Window> windows,
                         std::span<const std::vector<WindowScores>> scores, Formulas formulas) {
  const bool jensen_shannon = measures_jensen_shannon(scores);
  fmt::memory_buffer line;
  const auto put = [&] {
    file.write(std::as_bytes(std::span(line.data(), line.size())));
    line.clear();
  };
  auto out = std::back_inserter(line);
  fmt::format_to(out, "window,position,token,target");
  for (size_t v = 0; v < variants.size(); ++v) {
    const auto add = [&](const char* figure) {
      fmt::format_to(out, ",{}", csv_field(variants[v].name + figure, formulas));
    };
    for (const char* figure : {" nll", " p", " top1"}) add(figure);
    if (v == 0) continue;
    for (const char* figure : {" kld", " kld_reverse"}) add(figure);
    if (jensen_shannon) add(" jensen_shannon");
  }
  fmt::format_to(out, "\n");
  put();
  const size_t finished = scores.empty() ? 0 : scores[0].size();
  for (size_t w = 0; w < finished; ++w) {
    const Window& window = windows[w];
    for (size_t i = 0; i < scores[0][w].tokens.size(); ++i) {
      const size_t position = static_cast<size_t>(window.score_begin) + i;
      fmt::format_to(out, "{},{},{},{}", w, position, window.tokens[position - 1], window.target(position));
      for (size_t v = 0; v < variants.size(); ++v) {
        const TokenScore& score = scores[v][w].tokens[i];
        fmt::format_to(out, ",{},{},{}", score.nll, score.p, score.top1);
        if (v > 0) fmt::format_to(out, ",{},{}", score.kld, score.kld_reverse);
        if (v > 0 && jensen_shannon) fmt::format_to(out, ",{}", score.jensen_shannon);
      }
      fmt::format_to(out, "\n");
      put();
    }
  }
  file.commit();
}

}  // namespace mxlm
