#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/quote.hpp"
#include "report/figures.hpp"
#include "report/page.hpp"

namespace mxlm::report {
namespace {

bool is_word(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'; }

/// True if GitHub would turn the text around text[at] into a link or a notice to a person: "@user", "name@host.org",
/// "https://", "www.".
bool begins_link(std::string_view text, size_t at) {
  const std::string_view after = text.substr(at + 1);
  if (text[at] == ':') return after.starts_with("//");
  if (text[at] == '.') {
    constexpr std::string_view kWww = "www";
    return at >= kWww.size() && std::equal(kWww.begin(), kWww.end(), text.substr(at - kWww.size()).begin(),
                                           [](char a, char b) { return a == (b | 0x20); });
  }
  if (text[at] != '@' || after.empty() || !is_word(after.front())) return false;
  if (at == 0 || !is_word(text[at - 1])) return true;
  const std::string_view host = after.substr(0, after.find_first_of("/@,= "));
  return host.find('.') != std::string_view::npos;
}

/// Text without any meaning in Markdown, on one line.
std::string plain(std::string_view text) {
  constexpr std::string_view kMarks = R"(\`*_{}[]()#+-.!|<>&~$:@)";
  constexpr std::string_view kZeroWidthSpace = "&#8203;";  // invisible; it divides text that would be a link
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Character character = first_character(text.substr(at));
    const char c = text[at];
    if (character.code < 0x20 || character.code == 0x7f) {
      out += ' ';
    } else if (disrupts_text(character.code)) {
      out += "\uFFFD";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (begins_link(text, at)) {
      out += c == '.' ? std::string(kZeroWidthSpace) + c : c + std::string(kZeroWidthSpace);
    } else {
      // A dot, colon or dash between letters needs no escape, which keeps names readable.
      const bool harmless = c == '.' || c == '-' || c == ':' || c == '+' || c == '(' || c == ')' || c == '@';
      if (!harmless && kMarks.find(c) != std::string_view::npos) out += '\\';
      out += text.substr(at, character.bytes);
    }
    at += character.bytes;
  }
  return out;
}

std::string cell(const ShownFigure& shown) {
  const Measured m =
      measured(shown.value.value * shown.scale + shown.offset, shown.error.value * shown.error_scale, shown.sign);
  return with_minus(m.error.empty() || m.error == "n/a" ? m.value : fmt::format("{} ± {}", m.value, m.error));
}

std::string table(const Run& run) {
  const bool bits = size_axis(run) == SizeAxis::bits;
  std::string out = fmt::format("| variant | {0} | Δ{0} % | z | verdict | KL mnats | top-1 % | {1} | tok/s |\n",
                                short_quantity_name(run), bits ? "bits a weight" : "MB");
  out += "|---|---:|---:|---:|---|---:|---:|---:|---:|\n";
  constexpr double mega = 1e6;
  const std::vector<Verdict> judged = verdicts(run);
  for (size_t i = 0; i < run.variants.size(); ++i) {
    const Variant& v = run.variants[i];
    const bool compared = v.figures.vs_baseline.has_value();
    const auto if_compared = [&](const std::string& text) { return compared ? text : std::string{}; };
    const std::string size = bits                         ? significant_text(v.weight_bits_variant, 3)
                             : v.weight_bytes_variant > 0 ? significant_text(v.weight_bytes_variant / mega, 3)
                                                          : "";
    out += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", plain(v.name), cell(ppl_figure(run, i)),
                       if_compared(cell(ppl_change_figure(run, i))), if_compared(with_minus(z_text(judged[i]))),
                       if_compared(verdict_text(judged[i])), if_compared(cell(kld_figure(run, i))),
                       if_compared(cell(top1_figure(run, i))), size, speed_text(v.tokens_per_second));
  }
  return out;
}

}  // namespace

std::string render_markdown(const Record& record) {
  std::string out;
  for (const Run& run : record.runs) {
    if (!out.empty()) out += '\n';
    out += fmt::format("**{}** on {}: protocol {}, context {}, {}{}.\n\n", plain(model_name(run)), plain(run.data.name),
                       plain(run.protocol.name), count_text(run.protocol.context), plural(run.windows, "window"),
                       run.complete ? "" : ", interrupted");
    if (!run.variants.empty()) out += table(run) + "\n" + plain(error_note(run)) + "\n";
    std::string specs;
    for (const Variant& v : run.variants) {
      if (!v.spec.empty() && v.spec != v.name) specs += fmt::format("* {}: {}\n", plain(v.name), plain(v.spec));
    }
    if (!specs.empty()) out += '\n' + specs;
  }
  return out;
}

}  // namespace mxlm::report
