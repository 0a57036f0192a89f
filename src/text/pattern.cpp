#include "text/pattern.hpp"

#include "base/error.hpp"

namespace mxlm::text {

Pattern Pattern::from_json(const Json& json) {
  if (const auto literal = json.find("String")) {
    if (literal->string().empty()) fail("{}: an empty pattern is not supported", literal->where);
    return Pattern(std::string(literal->string()));
  }
  if (const auto regex = json.find("Regex")) {
    Pattern out{std::string(regex->string())};
    out.regex_.emplace(regex->string(), regex->where);
    return out;
  }
  fail("{}: should hold \"String\" or \"Regex\"", json.where);
}

void Pattern::find_all(std::string_view text, std::vector<Match>& out, size_t enough) const {
  if (regex_) {
    regex_->find_all(text, out, enough);
    return;
  }
  if (text.empty()) {
    out.push_back({0, 0, false});
    return;
  }
  size_t previous = 0;
  for (size_t at = text.find(text_); at != std::string_view::npos; at = text.find(text_, previous)) {
    if (at > previous) out.push_back({previous, at, false});
    previous = at + text_.size();
    out.push_back({at, previous, true});
    if (previous >= enough) return;
  }
  if (previous != text.size()) out.push_back({previous, text.size(), false});
}

std::optional<std::string_view> Pattern::regex_text() const {
  if (!regex_) return std::nullopt;
  return text_;
}

}  // namespace mxlm::text
