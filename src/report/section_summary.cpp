#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "report/sections.hpp"

namespace mxlm::report {
namespace {

constexpr size_t kMostSentences = 6;
constexpr size_t kMostNames = 8;
constexpr size_t kNameColumns = 60;

std::string name(const Run& run, size_t index) {
  return fmt::format("<b class=\"v\">{}</b>", breakable(short_name(run.variants[index], kNameColumns)));
}

std::string percent(const Run& run, size_t index) { return measured_text(ppl_change_figure(run, index)) + "\u00a0%"; }

/// "z = +8.1, significant"
std::string judged(const Verdict& v) {
  switch (v.kind) {
    case Verdict::Kind::unknown:
      return "whether that is more than chance is not known";
    case Verdict::Kind::same:
      return v.z == 0 ? "no difference at all" : fmt::format("z = {}, within the error", with_minus(z_text(v)));
    case Verdict::Kind::borderline:
      return fmt::format("z = {}, borderline", with_minus(z_text(v)));
    case Verdict::Kind::different:
      return fmt::format("z = {}, significant", with_minus(z_text(v)));
    case Verdict::Kind::noise:
      return "no more than the rounding noise";
  }
  return {};
}

bool compared(const Variant& v) { return v.figures.vs_baseline && std::isfinite(v.figures.vs_baseline->ppl_ratio); }

/// "changes perplexity by +0.8 ± 0.1 % (z = +8, significant)", and the size that it saves.
std::string sentence(const Run& run, size_t index, const Verdict& verdict) {
  const Variant& v = run.variants[index];
  if (!compared(v)) {
    return fmt::format("{} has no figures: {} of its tokens have NaN or infinite logits.", name(run, index),
                       count_text(v.figures.nonfinite));
  }
  std::string out = fmt::format(
      "{} is {} by KL divergence ({} mnats a token): it changes {} by {} ({}) and keeps the most likely "
      "token at {} % of positions",
      name(run, index), size_text(verdict.size), measured_text(kld_figure(run, index)), quantity_name(run),
      percent(run, index), judged(verdict), measured_text(top1_figure(run, index)));
  if (const auto& flips = v.figures.vs_baseline->flips) {
    const Source from = source(run) / "variants" / index / "vs_baseline" / "flips";
    const auto share = [&](const char* member, double value, double error) {
      constexpr double hundred = 100;
      return measured_text({.value = {from / member, value},
                            .error = {from / (std::string(member) + "_stderr_windows"), error},
                            .scale = hundred,
                            .error_scale = hundred});
    };
    out += fmt::format("; {} % of tokens turn from right to wrong and {} % from wrong to right",
                       share("right_to_wrong", flips->right_to_wrong, flips->right_to_wrong_stderr_windows),
                       share("wrong_to_right", flips->wrong_to_right, flips->wrong_to_right_stderr_windows));
  }
  if (std::isfinite(v.weight_bits_variant) && v.weight_bits_variant < v.weight_bits_baseline) {
    const Source bits = source(run) / "variants" / index / "weight_bits";
    out +=
        fmt::format("; a weight takes <span{}>{}</span> bits instead of <span{}>{}</span>",
                    attributes(bits / "variant", v.weight_bits_variant), significant_text(v.weight_bits_variant, 3),
                    attributes(bits / "baseline", v.weight_bits_baseline), significant_text(v.weight_bits_baseline, 3));
  } else if (v.weight_bytes_variant > 0 && v.weight_bytes_variant < v.weight_bytes_baseline) {
    const Source bytes = source(run) / "variants" / index / "weight_bytes";
    out += fmt::format("; the weights of the Linears take <span{}>{}</span> instead of <span{}>{}</span>",
                       attributes(bytes / "variant", v.weight_bytes_variant), bytes_text(v.weight_bytes_variant),
                       attributes(bytes / "baseline", v.weight_bytes_baseline), bytes_text(v.weight_bytes_baseline));
  }
  return out + ".";
}

/// "A, B and 3 more"
std::string names(const Run& run, const std::vector<size_t>& indices) {
  std::string out;
  const size_t shown = indices.size() > kMostNames ? kMostNames - 1 : indices.size();
  for (size_t i = 0; i < shown; ++i) {
    if (i > 0) out += i + 1 == indices.size() ? " and " : ", ";
    out += name(run, indices[i]);
  }
  if (shown < indices.size()) out += fmt::format(" and {} more", indices.size() - shown);
  return out;
}

std::string capital(std::string text) {
  if (text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

/// The first line: the number of variants that changed anything.
std::string lead(const Run& run, const std::vector<Verdict>& judgements) {
  const size_t count = run.variants.size() - 1;
  std::vector<size_t> worse, better, same, borderline;
  for (size_t i = 1; i < run.variants.size(); ++i) {
    const Verdict& v = judgements[i];
    if (v.kind == Verdict::Kind::different) (v.z > 0 ? worse : better).push_back(i);
    if (v.kind == Verdict::Kind::same || v.kind == Verdict::Kind::noise) same.push_back(i);
    if (v.kind == Verdict::Kind::borderline) borderline.push_back(i);
  }
  if (count == 1) {
    const std::string what = capital(quantity_name(run));
    if (!compared(run.variants[1])) return "The variant's figures are not finite.";
    const std::string size =
        judgements[1].size == Size::unknown ? "" : fmt::format("The variant is {}: ", size_text(judgements[1].size));
    const std::string then = size.empty() ? what : quantity_name(run);
    if (!worse.empty()) return fmt::format("{}{} rises by {}, a significant change.", size, then, percent(run, 1));
    if (!better.empty()) return fmt::format("{}{} falls, by {}, a significant change.", size, then, percent(run, 1));
    if (!borderline.empty()) {
      return fmt::format("{}{} changes by {}, on the border of chance.", size, then, percent(run, 1));
    }
    return fmt::format("{}{} does not change by more than its error.", size, then);
  }
  std::vector<std::string> parts;
  const auto part = [&](const std::vector<size_t>& of, const std::string& one, const std::string& many) {
    if (!of.empty()) {
      parts.push_back(
          fmt::format("{} {}", of.size() == count ? "all" : std::to_string(of.size()), of.size() == 1 ? one : many));
    }
  };
  part(worse, fmt::format("raises {} significantly", quantity_name(run)),
       fmt::format("raise {} significantly", quantity_name(run)));
  part(borderline, "is on the border of chance", "are on the border of chance");
  part(same, "does not change it by more than its error", "do not change it by more than their errors");
  part(better, "lowers it significantly", "lower it significantly");
  const size_t none = count - worse.size() - better.size() - same.size() - borderline.size();
  if (none > 0) parts.push_back(fmt::format("{} {} no finite figures", none, none == 1 ? "has" : "have"));
  const auto joined = [](const std::vector<std::string>& list) {
    std::string out;
    for (size_t i = 0; i < list.size(); ++i) out += (i == 0 ? "" : i + 1 == list.size() ? " and " : ", ") + list[i];
    return out;
  };
  std::vector<std::string> sizes;
  for (const Size size : {Size::rounding, Size::alike, Size::visible, Size::broken}) {
    const auto of_size =
        std::count_if(judgements.begin() + 1, judgements.end(), [&](const Verdict& v) { return v.size == size; });
    if (of_size > 0) sizes.push_back(fmt::format("{} {} {}", of_size, of_size == 1 ? "is" : "are", size_text(size)));
  }
  const std::string of = fmt::format("Of {} variants, ", count);
  const std::string by_size = sizes.empty() ? of : fmt::format("{}{} by KL divergence; ", of, joined(sizes));
  return fmt::format("{}{}.", by_size, joined(parts));
}

/// Other candidates for the front: variants that no variant of the front with at most their size beats by more than the
/// error of the difference of their KL divergences. "" if there are none.
std::string rivals(const Run& run, SizeAxis axis, const std::vector<size_t>& front) {
  std::map<std::pair<std::string_view, std::string_view>, const Pair*> pairs;
  for (const Pair& p : run.pairs) pairs.emplace(std::pair(std::string_view(p.a), std::string_view(p.b)), &p);
  const auto alike = [&](size_t x, size_t y) {
    const auto pair = pairs.find({run.variants[std::min(x, y)].name, run.variants[std::max(x, y)].name});
    return pair != pairs.end() && chance_of({.value = pair->second->kld_difference,
                                             .error = pair->second->kld_difference_stderr_windows,
                                             .clusters = run.clusters.number}) >= kBorderlineChance;
  };
  std::vector<char> on_front(run.variants.size(), 0);
  for (const size_t i : front) on_front[i] = 1;
  std::vector<size_t> out;
  for (size_t i = 1; i < run.variants.size(); ++i) {
    if (on_front[i] != 0) continue;
    // The front is ordered by size; its last variant that is no larger has the least KL divergence of these.
    const auto larger = std::upper_bound(front.begin(), front.end(), size_figure(run, i, axis).value,
                                         [&](double size, size_t f) { return size_figure(run, f, axis).value > size; });
    if (larger != front.begin() && alike(*(larger - 1), i)) out.push_back(i);
  }
  return out.empty() ? std::string{} : fmt::format("; within the error, nor than {}", names(run, out));
}

/// The variants to look at among many.
std::string highlights(const Run& run, const std::vector<Verdict>& judgements) {
  std::vector<size_t> order;
  for (size_t i = 1; i < run.variants.size(); ++i) {
    if (compared(run.variants[i]) && std::isfinite(kld_figure(run, i).value.value)) order.push_back(i);
  }
  if (order.empty()) return {};
  const auto kld = [&](size_t i) { return kld_figure(run, i).value.value; };
  const auto [closest, furthest] =
      std::minmax_element(order.begin(), order.end(), [&](size_t a, size_t b) { return kld(a) < kld(b); });
  std::string out;
  const auto item = [&](const char* what, size_t i) {
    const Verdict& v = judgements[i];
    out += fmt::format("<li>{}: {}, {} mnats of KL divergence a token, {} {} ({}).</li>\n", what, name(run, i),
                       measured_text(kld_figure(run, i)), quantity_name(run), percent(run, i), judged(v));
  };
  item("Closest to the baseline", *closest);
  item("Furthest from it", *furthest);
  const SizeAxis axis = size_axis(run);
  const std::vector<size_t> front = pareto_front(run, axis);
  if (front.size() > 1) {
    out += fmt::format("<li>No other variant has both smaller weights and less KL divergence than {}{}.</li>\n",
                       names(run, front), rivals(run, axis, front));
  }
  std::vector<size_t> same;
  for (const size_t i : order) {
    const Verdict::Kind kind = judgements[i].kind;
    if (kind == Verdict::Kind::same || kind == Verdict::Kind::noise) same.push_back(i);
  }
  if (!same.empty()) {
    out += fmt::format("<li>No change of {} beyond its error: {}.</li>\n", quantity_name(run), names(run, same));
  }
  return out;
}

/// Rounding, if --noise measured it.
std::string noise_note(const Run& run) {
  const auto& noise = run.variants[0].noise;
  if (!noise) return {};
  if (!noise->floor()) {
    return " Rounding noise was measured too, as the change under another order of float32 sums; the JSON has it.";
  }
  const Source from = source(run) / "variants" / size_t{0} / "noise";
  constexpr double milli = 1000, percent = 100;
  const NoiseFigures& d = noise->deviations;
  return fmt::format(
      " In another order of float32 sums the baseline differs from itself by <span{}>{}</span> mnats of KL divergence "
      "a "
      "token and in <span{}>{}</span> % of its most likely tokens; a variant that has up to {} times as much is called "
      "rounding. A "
      "change of perplexity within twice the standard deviation that the order of sums gives it is called noise.",
      attributes(from / "floor_kld", d.floor_kld), significant_text(d.floor_kld * milli, 2),
      attributes(from / "floor_flips", d.floor_flips), significant_text(d.floor_flips * percent, 2), kFloorMargin);
}

}  // namespace

std::string summary(const Run& run) {
  std::string out;
  if (!run.complete) {
    out += fmt::format("<p class=\"warning\"><b>Interrupted.</b> {}</p>\n",
                       run.variants.empty() || run.variants[0].figures.tokens == 0
                           ? "Nothing was scored."
                           : fmt::format("These figures are of {} only.", plural(run.windows, "window")));
  }
  if (run.variants.empty()) return out;
  const Variant& baseline = run.variants[0];
  const size_t count = run.variants.size() - 1;
  const std::vector<Verdict> judgements = verdicts(run);
  if (count > 0) out += fmt::format("<p class=\"lead\">{}</p>\n", lead(run, judgements));
  out += "<ul class=\"findings\">\n";
  out += fmt::format("<li>The baseline{} has a {} of {} on {} scored tokens.</li>\n",
                     run.model.compute_dtype.empty() ? "" : ", in " + escape(run.model.compute_dtype) + ",",
                     quantity_name(run), measured_text(ppl_figure(run, 0)), count_text(baseline.figures.tokens));
  if (count <= kMostSentences) {
    for (size_t i = 1; i < run.variants.size(); ++i)
      out += fmt::format("<li>{}</li>\n", sentence(run, i, judgements[i]));
  } else {
    out += highlights(run, judgements);
  }
  out += "</ul>\n";
  for (const Variant& v : run.variants) {
    if (v.figures.nonfinite == 0) continue;
    out += fmt::format(
        "<p class=\"warning\"><b>{}</b>: {} of {} tokens have NaN or infinite logits, so it has no figures.</p>\n",
        escape(v.name), count_text(v.figures.nonfinite), count_text(v.figures.tokens));
  }
  std::string note = escape(error_note(run));
  if (count > 0) {
    constexpr double milli = 1000;
    note += fmt::format(
        " For a change of {} it is that of the paired difference, token by token on the same text, which is far "
        "smaller "
        "than the errors of the two figures suggest. z is the logarithm of the ratio in these errors. By KL divergence "
        "a "
        "variant is like the baseline under {:.0f} mnats a token and broken over {:.0f}; whether {} changed is another "
        "question: beyond three errors the change is called significant, between two and three borderline, as chance "
        "({}{}) passes that once in 370 runs.",
        quantity_name(run), kAlikeNats * milli, kBrokenNats * milli, quantity_name(run),
        run.clusters.number > 1 ? fmt::format("Student's t with {} degrees of freedom", run.clusters.number - 1)
                                : "the normal distribution",
        count > 1 ? fmt::format(", Holm's correction over the {} variants", count) : "");
  }
  note += noise_note(run);
  out += fmt::format("<p class=\"note\">{}</p>\n", note);
  return out;
}

}  // namespace mxlm::report
