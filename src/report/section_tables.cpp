#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "report/sections.hpp"

namespace mxlm::report {
namespace {

constexpr size_t kMostPairs = 2000;
constexpr size_t kWorstLinears = 20;  // shown for each variant
constexpr size_t kMostLists = 500;    // with one list for each variant

Source variant_source(const Run& run, size_t index) { return source(run) / "variants" / index; }

/// The head of a row: number, name, and below it the spec if it differs from the name.
std::string row_head(const Run& run, size_t index) {
  const Variant& v = run.variants[index];
  std::string out = fmt::format(R"(<tr><td class="n i">{}</td><th scope="row" class="t"><span class="v">{}</span>)",
                                index, breakable(v.name));
  if (!v.spec.empty() && v.spec != v.name) out += fmt::format(R"(<span class="spec">{}</span>)", breakable(v.spec));
  return out + "</th>";
}

Column number_column() { return {.label = "#", .title = "number in the plots"}; }
Column variant_column() { return {.label = "Variant", .title = "", .columns = 1, .number = false}; }

std::string share_text(double share) {
  constexpr double percent = 100;
  return std::isfinite(share) ? significant_text(share * percent, 2) : "n/a";
}

template <typename Field>
bool any(const Run& run, Field field) {
  return std::any_of(run.variants.begin(), run.variants.end(), field);
}

/// A <details> for each variant is a long list if there are many variants, so it is folded once more.
std::string folded(const std::string& list, size_t count) {
  constexpr size_t kMost = 6;
  if (count > kMostLists) {
    return details(plural(static_cast<int64_t>(count), "variant"),
                   list + fmt::format("<p class=\"note\">The first {}; the JSON has all.</p>", kMostLists), "many");
  }
  return count > kMost ? details(plural(static_cast<int64_t>(count), "variant"), list, "many") : list;
}

/// The layers of a pattern as ranges: "0-11, 13".
std::string ranges(const std::set<int64_t>& numbers) {
  std::string out;
  for (auto at = numbers.begin(); at != numbers.end();) {
    const int64_t first = *at;
    int64_t last = first;
    for (++at; at != numbers.end() && *at == last + 1; ++at) last = *at;
    out += fmt::format("{}{}", out.empty() ? "" : ", ", first);
    if (last > first) out += fmt::format("–{}", last);
  }
  return out;
}

/// `tensor` with '*' for its first number between dots, and that number; -1 if there is none.
std::pair<std::string, int64_t> pattern(const std::string& tensor) {
  for (size_t at = tensor.find('.'); at != std::string::npos; at = tensor.find('.', at + 1)) {
    const size_t end = std::min(tensor.find('.', at + 1), tensor.size());
    const std::string part = tensor.substr(at + 1, end - at - 1);
    constexpr size_t kMostDigits = 6;
    if (part.empty() || part.size() > kMostDigits || part.find_first_not_of("0123456789") != std::string::npos)
      continue;
    return {tensor.substr(0, at + 1) + "*" + tensor.substr(end), std::stoll(part)};
  }
  return {tensor, -1};
}

std::string replaced_rows(const std::vector<ReplacedLinear>& replaced) {
  using Key = std::array<std::string, 4>;  // pattern, role, weights, activations
  std::map<Key, std::set<int64_t>> layers;
  std::map<Key, size_t> counts;
  std::vector<Key> order;
  for (const ReplacedLinear& r : replaced) {
    auto [name, layer] = pattern(r.tensor);
    const bool outputs = !r.outputs.empty() && r.outputs != "none";
    const Key key{name, r.role, r.weights,
                  outputs ? fmt::format("{}, outputs {}", r.activations, r.outputs) : r.activations};
    if (counts[key]++ == 0) order.push_back(key);
    if (layer >= 0) layers[key].insert(layer);
  }
  std::string out;
  for (const Key& key : order) {
    out += fmt::format(
        "<tr><td class=\"mono\">{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
        escape(key[0]), escape(key[1]), escape(key[2]), escape(key[3]), counts[key],
        layers.contains(key) ? ranges(layers[key]) : "");
  }
  return out;
}

}  // namespace

std::string variant_table(const Run& run) {
  const bool bits = size_axis(run) == SizeAxis::bits;
  std::vector<Column> columns{
      number_column(),
      variant_column(),
      {.label = short_quantity_name(run), .title = quantity_name(run) + ", exp of the mean NLL a token", .columns = 2},
      {.label = fmt::format("Δ{}, %", short_quantity_name(run)), .title = "change against the baseline", .columns = 2},
      {.label = "z", .title = "the change in standard errors of the paired difference"},
      {.label = "Verdict",
       .title = "size by KL divergence; beyond 3 errors: significant",
       .columns = 1,
       .number = false},
      {.label = "KL, mnats", .title = "KL(baseline ‖ variant) a token, 1/1000 nat", .columns = 2},
      {.label = "Top-1, %", .title = "positions with the same most likely token", .columns = 2}};
  const bool rolling = any(run, [](const Variant& v) { return v.figures.rolling.has_value(); });
  const bool entropy = any(run, [](const Variant& v) { return v.figures.self.has_value(); });
  if (rolling) {
    columns.push_back({.label = "Word PPL", .title = "exp of the NLL a word of the raw text", .columns = 2});
    columns.push_back({.label = "Bits/byte", .title = "NLL in bits a byte of the raw text"});
  }
  if (entropy) columns.push_back({.label = "Entropy", .title = "mean entropy a position, nats", .columns = 2});
  if (bits) columns.push_back({.label = "Bits", .title = "mean bits of a weight of the Linears, scales included"});
  columns.push_back({.label = "MB", .title = "weights of the Linears"});
  columns.push_back({.label = "Tok/s", .title = "positions a second, loading and preparing excluded"});
  std::string out = table_open("Variants side by side", columns, "main sortable");
  const std::vector<Verdict> verdicts_of = verdicts(run);
  for (size_t i = 0; i < run.variants.size(); ++i) {
    const Variant& v = run.variants[i];
    const Source from = variant_source(run, i);
    out += row_head(run, i);
    out += measured_cells(ppl_figure(run, i));
    if (v.figures.vs_baseline) {
      const Verdict& judged = verdicts_of[i];
      out += measured_cells(ppl_change_figure(run, i));
      const std::string sorted = std::isfinite(judged.z) ? fmt::format(R"( data-s="{}")", exact(judged.z)) : "";
      out += fmt::format(R"(<td class="n"{}>{}</td><td class="verdict k{}">{}</td>)", sorted,
                         with_minus(z_text(judged)), static_cast<int>(judged.kind), verdict_text(judged));
      out += measured_cells(kld_figure(run, i)) + measured_cells(top1_figure(run, i));
    } else {
      out += empty_cell() + empty_cell() + empty_cell() + empty_cell();
      for (int column = 0; column < 4; ++column) out += empty_cell();
    }
    if (rolling) {
      if (const auto& r = v.figures.rolling) {
        const bool clustered = v.figures.clusters > 0;
        out += measured_cells(
            {.value = {from / "word_perplexity", r->word_perplexity},
             .error = clustered ? Figure{from / "word_perplexity_stderr_windows", r->word_perplexity_stderr_windows}
                                : Figure{from / "word_perplexity_stderr", r->word_perplexity_stderr}});
        out += figure_cell({from / "bits_per_byte", r->bits_per_byte}, decimal_text(r->bits_per_byte, 4));
      } else {
        out += empty_cell() + empty_cell() + empty_cell();
      }
    }
    if (entropy) {
      if (const auto& s = v.figures.self) {
        out += measured_cells({.value = {from / "mean_entropy", s->entropy},
                               .error = v.figures.clusters > 0
                                            ? Figure{from / "mean_entropy_stderr_windows", s->entropy_stderr_windows}
                                            : Figure{from / "mean_entropy_stderr", s->entropy_stderr}});
      } else {
        out += empty_cell() + empty_cell();
      }
    }
    if (bits) {
      out += figure_cell({from / "weight_bits" / "variant", v.weight_bits_variant},
                         significant_text(v.weight_bits_variant, 3));
    }
    constexpr double mega = 1e6;
    out += v.weight_bytes_variant > 0 ? figure_cell({from / "weight_bytes" / "variant", v.weight_bytes_variant},
                                                    significant_text(v.weight_bytes_variant / mega, 3))
                                      : empty_cell();
    out += v.tokens_per_second > 0
               ? figure_cell({from / "tokens_per_second", v.tokens_per_second}, speed_text(v.tokens_per_second))
               : empty_cell();
    out += "</tr>\n";
  }
  return out + table_close();
}

std::string distribution_table(const Run& run) {
  std::set<std::pair<double, std::string>> percentiles;
  for (const Variant& v : run.variants) {
    if (!v.figures.vs_baseline) continue;
    for (const auto& [key, value] : v.figures.vs_baseline->kld_percentiles) {
      if (key == "0" || key == "100") continue;  // 0 is only rounding, 100 has its own column
      percentiles.emplace(std::strtod(key.c_str(), nullptr), key);
    }
  }
  if (percentiles.empty()) return {};
  std::vector<Column> columns{number_column(), variant_column()};
  for (const auto& [number, key] : percentiles) {
    columns.push_back(
        {.label = fmt::format("{} %", escape(key)), .title = "percentile of KL divergence, mnats a token"});
  }
  columns.push_back({.label = "max", .title = "largest KL divergence of a token, mnats"});
  const auto any = [&run](const auto& measured) {
    return std::any_of(run.variants.begin(), run.variants.end(),
                       [&](const Variant& v) { return v.figures.vs_baseline && measured(*v.figures.vs_baseline); });
  };
  // Results of earlier versions lack it.
  const bool reverse = any([](const VsBaseline& b) { return std::isfinite(b.kld_reverse_mean); });
  if (reverse) {
    columns.push_back({.label = "reverse, mnats",
                       .title = "KL divergence of the baseline from the variant, KL(variant‖baseline), mnats a token",
                       .columns = 2});
  }
  const bool jensen_shannon = any([](const VsBaseline& b) { return b.jensen_shannon_mean.has_value(); });
  if (jensen_shannon) {
    columns.push_back({.label = "Jensen-Shannon, mnats",
                       .title = "Jensen-Shannon divergence of baseline and variant, mnats a token",
                       .columns = 2});
  }
  columns.push_back({.label = "Δp, %", .title = "mean change of the right token's probability"});
  columns.push_back({.label = "RMS Δp, %", .title = "its root mean square", .columns = 2});
  columns.push_back({.label = "r", .title = "correlation of the NLL of tokens with the baseline's"});
  std::string out = table_open("KL divergence by percentile of tokens, mnats", columns, "sortable");
  constexpr double milli = 1000, percent = 100, unknown = std::numeric_limits<double>::quiet_NaN();
  for (size_t i = 1; i < run.variants.size(); ++i) {
    const auto& b = run.variants[i].figures.vs_baseline;
    if (!b) continue;
    const Source from = variant_source(run, i) / "vs_baseline";
    out += row_head(run, i);
    const auto cell = [&](const Source& member, double value, double scale) {
      out += figure_cell({member, value}, std::isfinite(value * scale) ? fmt::format("{:.3g}", value * scale) : "n/a");
    };
    const auto error = [&](const std::string& member, double by_cluster, double by_token) {
      return run.clusters.number > 0 ? Figure{from / (member + "_windows"), by_cluster}
                                     : Figure{from / member, by_token};
    };
    for (const auto& [number, key] : percentiles) {
      const auto found = b->kld_percentiles.find(key);
      if (found == b->kld_percentiles.end()) {
        out += empty_cell();
      } else {
        cell(from / "kld_percentiles" / escape(key), found->second, milli);
      }
    }
    cell(from / "kld_max", b->kld_max, milli);
    if (reverse) {
      out += measured_cells({.value = {from / "kld_reverse_mean", b->kld_reverse_mean},
                             .error = error("kld_reverse_stderr", b->kld_reverse_stderr_windows, b->kld_reverse_stderr),
                             .scale = milli,
                             .error_scale = milli});
    }
    if (b->jensen_shannon_mean) {
      out += measured_cells({.value = {from / "jensen_shannon_mean", *b->jensen_shannon_mean},
                             .error = error("jensen_shannon_stderr", b->jensen_shannon_stderr_windows.value_or(unknown),
                                            b->jensen_shannon_stderr.value_or(unknown)),
                             .scale = milli,
                             .error_scale = milli});
    } else if (jensen_shannon) {
      out += empty_cell() + empty_cell();
    }
    cell(from / "delta_p_mean", b->delta_p_mean, percent);
    out += measured_cells({.value = {from / "delta_p_rms", b->delta_p_rms},
                           .error = error("delta_p_rms_stderr", b->delta_p_rms_stderr_windows, b->delta_p_rms_stderr),
                           .scale = percent,
                           .error_scale = percent});
    out += figure_cell({from / "correlation", b->correlation}, decimal_text(b->correlation, 5));
    out += "</tr>\n";
  }
  return out + table_close();
}

std::string pair_table(const Run& run) {
  if (run.pairs.empty()) return {};
  std::string out = table_open("Variants against one another",
                               {{.label = "A", .number = false},
                                {.label = "B", .number = false},
                                {.label = "ln(PPL B / PPL A), ‰", .columns = 2},
                                {.label = "z"},
                                {.label = "Verdict", .number = false},
                                {.label = "KL B − KL A, mnats", .columns = 2},
                                {.label = "z"},
                                {.label = "Verdict", .number = false}},
                               "sortable");
  const int64_t clusters = run.clusters.number;
  std::vector<Difference> ratios, divergences;
  for (const Pair& p : run.pairs) {
    ratios.push_back({.value = p.ln_ppl_ratio,
                      .error = clusters > 0 ? p.ln_ppl_ratio_stderr_windows : p.ln_ppl_ratio_stderr,
                      .clusters = clusters});
    divergences.push_back({.value = p.kld_difference,
                           .error = clusters > 0 ? p.kld_difference_stderr_windows : p.kld_difference_stderr,
                           .clusters = clusters});
  }
  const std::vector<Verdict> by_ratio = verdicts(ratios), by_divergence = verdicts(divergences);
  constexpr double milli = 1000;
  const auto add = [&](const Source& from, const std::string& member, const Difference& d, const Verdict& judged) {
    const std::string error = member + (clusters > 0 ? "_stderr_windows" : "_stderr");
    out += measured_cells({.value = {from / member, d.value},
                           .error = {from / error, d.error},
                           .scale = milli,
                           .error_scale = milli,
                           .sign = Sign::always});
    const std::string sorted = std::isfinite(judged.z) ? fmt::format(R"( data-s="{}")", exact(judged.z)) : "";
    out += fmt::format("<td class=\"n\"{}>{}</td><td class=\"verdict k{}\">{}</td>", sorted, with_minus(z_text(judged)),
                       static_cast<int>(judged.kind), verdict_text(judged));
  };
  for (size_t i = 0; i < std::min(run.pairs.size(), kMostPairs); ++i) {
    const Source from = source(run) / "pairs" / i;
    out += fmt::format(
        "<tr><th scope=\"row\" class=\"t\"><span class=\"v\">{}</span></th><td><span class=\"v\">{}</span></td>",
        breakable(run.pairs[i].a), breakable(run.pairs[i].b));
    add(from, "ln_ppl_ratio", ratios[i], by_ratio[i]);
    add(from, "kld_difference", divergences[i], by_divergence[i]);
    out += "</tr>\n";
  }
  out += table_close();
  out += fmt::format(
      "<p class=\"note\">Verdicts count that {} were looked at (Holm's correction over the pairs, one for perplexity "
      "and "
      "one for KL divergence).</p>",
      plural(static_cast<int64_t>(run.pairs.size()), "pair"));
  if (run.pairs.size() > kMostPairs) {
    out += fmt::format("<p class=\"note\">The first {} pairs; the JSON has all.</p>", count_text(kMostPairs));
  }
  return out;
}

std::string linear_errors(const Run& run) {
  std::string out;
  size_t count = 0;
  for (size_t v = 0; v < run.variants.size(); ++v) {
    const std::vector<LinearError>& linears = run.variants[v].linears;
    if (linears.empty() || ++count > kMostLists) continue;
    std::vector<size_t> order(linears.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto output = [&](size_t i) {
      const double sqnr = linears[i].output_sqnr_db;
      return std::isfinite(sqnr) ? sqnr : std::numeric_limits<double>::infinity();
    };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return output(a) < output(b); });
    order.resize(std::min(order.size(), kWorstLinears));
    std::vector<Column> columns{{.label = "Tensor", .number = false},
                                {.label = "Role", .number = false},
                                {.label = "Output, dB", .title = "signal-to-noise ratio of the product"},
                                {.label = "cosine", .title = "of the product with the baseline's"}};
    for (const char* side : {"W", "A"}) {
      columns.push_back({.label = fmt::format("{}, dB", side), .title = "signal-to-noise ratio of the operand"});
      columns.push_back({.label = fmt::format("{} sat., %", side), .title = "elements beyond the largest value"});
      columns.push_back({.label = fmt::format("{} flushed, %", side), .title = "elements that became 0"});
      columns.push_back({.label = fmt::format("{} subn., %", side), .title = "elements that became subnormal"});
      columns.push_back(
          {.label = fmt::format("{} spread", side), .title = "of the shared exponents inside a row: mean / max"});
    }
    std::string table = table_open(
        fmt::format("Linears with the largest errors of {}", short_name(run.variants[v], 60)), columns, "sortable");
    for (const size_t i : order) {
      const LinearError& e = linears[i];
      const Source from = variant_source(run, v) / "linears" / i;
      table +=
          fmt::format("<tr><th scope=\"row\" class=\"t mono\">{}</th><td>{}</td>", escape(e.tensor), escape(e.role));
      table += figure_cell({from / "output_sqnr_db", e.output_sqnr_db}, decimal_text(e.output_sqnr_db, 1));
      table += figure_cell({from / "output_cosine", e.output_cosine}, decimal_text(e.output_cosine, 5));
      const auto operand = [&](const std::optional<OperandError>& o, const Source& side) {
        if (!o) {
          for (int column = 0; column < 5; ++column) table += empty_cell();
          return;
        }
        table += figure_cell({side / "sqnr_db", o->sqnr_db}, decimal_text(o->sqnr_db, 1));
        table += figure_cell({side / "saturated", o->saturated}, share_text(o->saturated));
        table += figure_cell({side / "flushed", o->flushed}, share_text(o->flushed));
        table += figure_cell({side / "subnormal", o->subnormal}, share_text(o->subnormal));
        table += figure_cell({side / "spread" / "mean", o->spread_mean},
                             fmt::format("{} / {}", decimal_text(o->spread_mean, 1), decimal_text(o->spread_max, 0)));
      };
      operand(e.weight, from / "weight");
      operand(e.activation, from / "activation");
      table += "</tr>\n";
    }
    table += table_close();
    if (order.size() < linears.size()) {
      table += fmt::format("<p class=\"note\">The {} Linears with the lowest ratio of {}; the JSON has all.</p>",
                           order.size(), count_text(static_cast<int64_t>(linears.size())));
    }
    out +=
        details(fmt::format("<span class=\"v\">{}</span> <small>{}</small>", breakable(short_name(run.variants[v], 60)),
                            plural(static_cast<int64_t>(linears.size()), "Linear")),
                table);
  }
  return folded(out, count);
}

std::string cost_table(const Run& run) {
  if (run.variants.empty()) return {};
  std::string out = table_open("Time and memory",
                               {number_column(),
                                variant_column(),
                                {.label = "Tok/s", .title = "positions a second"},
                                {.label = "Prepare, s", .title = "quantising and packing weights"},
                                {.label = "Forward, s"},
                                {.label = "Head, s"},
                                {.label = "Weights, MB", .title = "of the Linears"}},
                               "sortable");
  for (size_t i = 0; i < run.variants.size(); ++i) {
    const Variant& v = run.variants[i];
    const Source from = variant_source(run, i), seconds = from / "seconds";
    constexpr double mega = 1e6;
    out += row_head(run, i);
    out += figure_cell({from / "tokens_per_second", v.tokens_per_second}, speed_text(v.tokens_per_second));
    out += figure_cell({seconds / "prepare", v.seconds.prepare}, decimal_text(v.seconds.prepare, 3));
    out += figure_cell({seconds / "forward", v.seconds.forward}, decimal_text(v.seconds.forward, 3));
    out += figure_cell({seconds / "head", v.seconds.head}, decimal_text(v.seconds.head, 3));
    out += figure_cell({from / "weight_bytes" / "variant", v.weight_bytes_variant},
                       significant_text(v.weight_bytes_variant / mega, 4));
    out += "</tr>\n";
  }
  return out + table_close();
}

std::string replaced_list(const Run& run) {
  std::string out;
  size_t count = 0;
  for (const Variant& v : run.variants) {
    if (v.replaced.empty() || ++count > kMostLists) continue;
    std::string table = table_open(fmt::format("Products replaced by {}", short_name(v, 60)),
                                   {{.label = "Tensor", .number = false},
                                    {.label = "Role", .number = false},
                                    {.label = "Weights", .number = false},
                                    {.label = "Activations", .number = false},
                                    {.label = "Linears"},
                                    {.label = "Layers", .number = false}});
    table += replaced_rows(v.replaced) + table_close();
    out += details(fmt::format("<span class=\"v\">{}</span> <small>{} replaced</small>", breakable(short_name(v, 60)),
                               plural(static_cast<int64_t>(v.replaced.size()), "Linear")),
                   table);
  }
  return folded(out, count);
}

}  // namespace mxlm::report
