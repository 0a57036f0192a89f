#include "protocols/wikitext.hpp"

#include <algorithm>

#include "text/unicode.hpp"

namespace mxlm::protocols {
namespace {

/// Python's str.isspace and \s for one character: the White_Space of Unicode and four separators of ASCII.
bool is_python_space(uint32_t c) { return text::is_space(c) || (c >= 0x1c && c <= 0x1f); }

/// The line at the start of `text` with its newline, if it has one.
std::string_view first_line(std::string_view text) {
  const size_t newline = text.find('\n');
  return text.substr(0, newline == std::string_view::npos ? text.size() : newline + 1);
}

/// str.strip() in Python.
std::string_view strip(std::string_view s) {
  while (!s.empty()) {
    const auto [c, size] = text::decode_at(s, 0);
    if (!is_python_space(c)) break;
    s.remove_prefix(size);
  }
  while (!s.empty()) {
    const auto [c, size] = text::decode_before(s, s.size());
    if (!is_python_space(c)) break;
    s.remove_suffix(size);
  }
  return s;
}

/// s.replace(from, to) in Python.
void replace_all(std::string& s, std::string_view from, std::string_view to) {
  size_t at = s.find(from);
  if (at == std::string::npos) return;
  std::string out;
  out.reserve(s.size());
  size_t begin = 0;
  for (; at != std::string::npos; at = s.find(from, begin)) {
    out.append(s, begin, at - begin).append(to);
    begin = at + from.size();
  }
  out.append(s, begin);
  s = std::move(out);
}

/// re.sub(r"OPEN\s*([^CLOSE]*?)\s*CLOSE", r"OPEN\1CLOSE", s): drops white space just inside a pair of marks. An opening
/// mark pairs with the next closing mark, whatever lies between.
void tighten(std::string& s, char open, char close) {
  std::string out;
  out.reserve(s.size());
  size_t begin = 0;
  for (;;) {
    const size_t first = s.find(open, begin);
    const size_t last = first == std::string::npos ? first : s.find(close, first + 1);
    if (last == std::string::npos) break;
    out.append(s, begin, first + 1 - begin).append(strip(std::string_view(s).substr(first + 1, last - first - 1)));
    out += close;
    begin = last + 1;
  }
  s = std::move(out.append(s, begin));
}

/// re.sub(r"/' [0-9]/", r"/'[0-9]/", s): the harness puts its own pattern in the place of a digit.
void replace_slashed_digits(std::string& s) {
  constexpr std::string_view before = "/' ", after = "/'[0-9]/";
  for (size_t at = 0; (at = s.find(before, at)) != std::string::npos;) {
    const size_t digit = at + before.size();
    const bool found = digit + 1 < s.size() && s[digit] >= '0' && s[digit] <= '9' && s[digit + 1] == '/';
    if (found) s.replace(at, before.size() + 2, after);
    at += found ? after.size() : 1;
  }
}

bool is_title(std::string_view line) {
  std::string plain(line);
  replace_all(plain, "= = =", "===");
  replace_all(plain, "= =", "==");
  const std::string_view title = strip(plain);
  return title.starts_with("= ") && title.ends_with(" =");
}

}  // namespace

bool is_raw_wikitext(std::string_view text) {
  if (text.empty()) return false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (line.empty() || line.front() != ' ' || line.back() != ' ') return false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return true;
}

bool is_wikitext(const DocumentSource& source) {
  if (source.is_text) return source.documents.size() == 1 && is_raw_wikitext(source.documents[0].text);
  const auto is_row = [](const Document& row) {
    return row.text.empty() ||
           (row.text.ends_with('\n') && row.text.find('\n') == row.text.size() - 1 && is_raw_wikitext(row.text));
  };
  // A title is required, so that a data set of short lines is not taken for WikiText.
  return std::all_of(source.documents.begin(), source.documents.end(), is_row) &&
         std::any_of(source.documents.begin(), source.documents.end(),
                     [](const Document& row) { return is_title(row.text); });
}

std::vector<std::string_view> rows_of(const DocumentSource& source) {
  std::vector<std::string_view> rows;
  for (const Document& document : source.documents) {
    std::string_view text = document.text;
    if (!source.is_text || !is_raw_wikitext(text)) {
      rows.push_back(text);
      continue;
    }
    while (!text.empty()) {
      const std::string_view line = first_line(text);
      rows.push_back(line.find_first_not_of(" \n") == std::string_view::npos ? std::string_view{} : line);
      text.remove_prefix(line.size());
    }
  }
  return rows;
}

std::string join_rows(const DocumentSource& source) {
  std::string out;
  bool first = true;
  for (const std::string_view row : rows_of(source)) {
    if (!first) out += "\n\n";
    out += row;
    first = false;
  }
  return out;
}

std::vector<std::string> wikitext_pages(std::string_view text) {
  std::vector<std::string> pages;
  std::string page;
  bool begun = false;  // the page has a line
  for (;;) {
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    if (is_title(line)) {
      if (!strip(page).empty()) pages.push_back(std::move(page));
      page.clear();
      begun = false;
    }
    if (begun) page += '\n';
    page += line;
    begun = true;
    if (newline == std::string_view::npos) break;
    text.remove_prefix(newline + 1);
  }
  pages.push_back(std::move(page));
  return pages;
}

std::string raw_wikitext(const DocumentSource& source) {
  if (source.is_text) return source.documents.front().text;
  std::string out;
  for (const Document& row : source.documents) out += row.text.empty() ? std::string(" \n") : row.text;
  return out;
}

std::string detokenize_wikitext(std::string page) {
  const auto plain = [&page](std::string_view from, std::string_view to) { replace_all(page, from, to); };
  plain("s '", "s'");
  replace_slashed_digits(page);
  plain(" @-@ ", "-");
  plain(" @,@ ", ",");
  plain(" @.@ ", ".");
  for (const char mark : std::string_view(":;.!?,")) {
    plain(std::string{' ', mark, ' '}, std::string{mark, ' '});
  }
  tighten(page, '(', ')');
  tighten(page, '[', ']');
  tighten(page, '{', '}');
  tighten(page, '"', '"');
  tighten(page, '\'', '\'');
  plain("= = = =", "====");
  plain("= = =", "===");
  plain("= =", "==");
  plain(" \u00b0 ", "\u00b0");
  plain(" \n", "\n");
  plain("\n ", "\n");
  plain(" N ", " 1 ");
  plain(" 's", "'s");
  return page;
}

int64_t count_words(std::string_view text) {
  int64_t words = 1;
  bool in_space = false;
  while (!text.empty()) {
    const auto [c, size] = text::decode_at(text, 0);
    const bool space = is_python_space(c);
    if (space && !in_space) ++words;
    in_space = space;
    text.remove_prefix(size);
  }
  return words;
}

}  // namespace mxlm::protocols
