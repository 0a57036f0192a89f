// Rewrites a pattern from Oniguruma's Ruby syntax to PCRE2's.

#include <fmt/format.h>

#include <array>
#include <functional>
#include <map>
#include <optional>

#include "base/error.hpp"
#include "text/regex.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {
namespace {

/// White_Space without PCRE2's U+180E, as members of a class.
constexpr std::string_view kSpaceMembers =
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

constexpr std::array<std::string_view, 29> kCategoryNames = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl",
                                                             "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc",
                                                             "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cn"};

/// Script and binary names that are passed on; their newest members are those of PCRE2's own Unicode version.
constexpr std::array<std::string_view, 16> kScripts = {
    "Han",    "Hiragana", "Katakana", "Hangul", "Latin",      "Greek",   "Cyrillic", "Arabic",
    "Hebrew", "Thai",     "Lao",      "Khmer",  "Devanagari", "Bengali", "Tamil",    "Armenian"};

/// Ranges, as members of a class, of the code points newer than PCRE2's Unicode whose category `takes` accepts.
std::string newer_members(const std::function<bool(Category)>& takes) {
  std::string out;
  const auto ranges = newer_than_pcre2();
  for (size_t i = 0; i + 1 < ranges.size(); i += 2) {
    for (uint32_t c = ranges[i]; c <= ranges[i + 1]; ++c) {
      if (!takes(category_of(c))) continue;
      const uint32_t first = c;
      while (c < ranges[i + 1] && takes(category_of(c + 1))) ++c;
      out += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", first, c);
    }
  }
  return out;
}

/// What a property stands for, as members of a class: itself and its newer code points. nullopt: not known.
std::optional<std::string> property_members(std::string_view name) {
  static const auto* cache = [] {
    auto* all = new std::map<std::string, std::string, std::less<>>;
    for (size_t k = 0; k < kCategoryNames.size(); ++k) {
      const std::string full(kCategoryNames[k]);
      const std::string group = full.substr(0, 1);
      (*all)[full] =
          "\\p{" + full + "}" + newer_members([k](Category c) {
            return static_cast<size_t>(c) == k || (c == Category::So_alphabetic && kCategoryNames[k] == "So");
          });
      if (all->contains(group)) continue;
      (*all)[group] = "\\p{" + group + "}" + newer_members([group](Category c) {
                        const size_t index =
                            c == Category::So_alphabetic ? static_cast<size_t>(Category::So) : static_cast<size_t>(c);
                        return kCategoryNames[index].substr(0, 1) == group;
                      });
    }
    return all;
  }();
  if (const auto it = cache->find(name); it != cache->end()) return it->second;
  for (const std::string_view script : kScripts) {
    if (name == script) return fmt::format("\\p{{sc:{}}}", script);
  }
  return std::nullopt;
}

/// \w of Oniguruma as members of a class.
const std::string& word_members() {
  static const std::string members =
      "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" + newer_members([](Category k) {
        return is_letter(k) || is_mark(k) || k == Category::Nd || k == Category::Nl || k == Category::Pc ||
               k == Category::So_alphabetic;
      });
  return members;
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        outside_class();
      } else if (c == '[') {
        character_class();
      } else if (c == '(' && pattern_.substr(at_).starts_with("(?")) {
        group_options();
      } else if (c == '(' && pattern_.substr(at_).starts_with("(*")) {
        refuse("a verb '(*'");
      } else if (c == '{') {
        interval();
      } else {
        out_ += c;
        ++at_;
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail("{}: the regular expression '{}' uses {}, which this program does not read as the tokenizers library does",
         where_, pattern_.substr(0, 200), what);
  }

  /// After a backslash: the members that \s \d \w \p{..} or \h stand for, and whether the escape negates them.
  struct Set {
    std::string members;
    bool negated;
  };
  std::optional<Set> set_escape() {
    const char c = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    switch (c) {
      case 's':
      case 'S':
        at_ += 2;
        return Set{std::string(kSpaceMembers), c == 'S'};
      case 'd':
      case 'D':
        at_ += 2;
        return Set{property_members("Nd").value_or(std::string()), c == 'D'};
      case 'w':
      case 'W':
        at_ += 2;
        return Set{word_members(), c == 'W'};
      case 'h':
      case 'H':  // a hexadecimal digit in Ruby's syntax
        at_ += 2;
        return Set{"0-9a-fA-F", c == 'H'};
      case 'p':
      case 'P': {
        bool negated = c == 'P';
        size_t begin = at_ + 2;
        if (begin >= pattern_.size() || pattern_[begin] != '{') refuse("\\p without {name}");
        ++begin;
        if (begin < pattern_.size() && pattern_[begin] == '^') {
          negated = !negated;
          ++begin;
        }
        const size_t end = pattern_.find('}', begin);
        if (end == std::string_view::npos) refuse("\\p{ without an end");
        const std::string_view name = pattern_.substr(begin, end - begin);
        auto members = property_members(name);
        if (!members) refuse(fmt::format("the property '{}'", name.substr(0, 60)));
        at_ = end + 1;
        return Set{std::move(*members), negated};
      }
      default:
        return std::nullopt;
    }
  }

  /// Copies an escape that means the same single character, or assertion, on both sides.
  void copy_escape(std::string& to, bool in_class) {
    if (at_ + 1 >= pattern_.size()) refuse("a backslash at its end");
    const char c = pattern_[at_ + 1];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter) {
      to += '\\';
      to += c;  // also the first byte of a longer character, whose others follow
      at_ += 2;
      return;
    }
    constexpr std::string_view kSame = "tnrfae";
    if (kSame.find(c) != std::string_view::npos) {
      to += '\\';
      to += c;
      at_ += 2;
      return;
    }
    if (c == 'v') {
      to += "\\x0b";
      at_ += 2;
      return;
    }
    if (c == 'x' || c == 'u') {
      hexadecimal(to);
      return;
    }
    if (!in_class && (c == 'A' || c == 'z' || c == 'Z' || c == 'G')) {
      to += '\\';
      to += c;
      at_ += 2;
      return;
    }
    refuse(fmt::format("the escape '\\{}'", c));
  }

  void hexadecimal(std::string& to) {
    const auto is_hex = [&](size_t i) {
      return i < pattern_.size() &&
             std::string_view("0123456789abcdefABCDEF").find(pattern_[i]) != std::string_view::npos;
    };
    size_t begin = at_ + 2;
    size_t end = begin;
    if (pattern_[at_ + 1] == 'x' && begin < pattern_.size() && pattern_[begin] == '{') {
      end = ++begin;
      while (is_hex(end)) ++end;
      if (end == begin || end - begin > 6 || end >= pattern_.size() || pattern_[end] != '}') refuse("a wrong \\x{...}");
      to += fmt::format("\\x{{{}}}", pattern_.substr(begin, end - begin));
      at_ = end + 1;
      return;
    }
    const size_t digits = pattern_[at_ + 1] == 'u' ? 4 : 2;
    while (is_hex(end) && end - begin < digits) ++end;
    if (end - begin != digits) refuse("a wrong \\x or \\u escape");
    if (digits == 2 && pattern_[begin] > '7') refuse("a byte above \\x7f");  // part of a UTF-8 sequence in Oniguruma
    to += fmt::format("\\x{{{}}}", pattern_.substr(begin, digits));
    at_ = end;
  }

  void outside_class() {
    if (const auto set = set_escape()) {
      out_ += set->negated ? "[^" : "[";
      out_ += set->members;
      out_ += ']';
      return;
    }
    const char c = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    if (c == 'b' || c == 'B') {
      const std::string& w = word_members();
      const std::string after = fmt::format("(?<=[{}])", w);
      const std::string not_after = fmt::format("(?<![{}])", w);
      const std::string before = fmt::format("(?=[{}])", w);
      const std::string not_before = fmt::format("(?![{}])", w);
      out_ += c == 'b' ? fmt::format("(?:{}{}|{}{})", after, not_before, not_after, before)
                       : fmt::format("(?:{}{}|{}{})", after, before, not_after, not_before);
      at_ += 2;
      return;
    }
    copy_escape(out_, false);
  }

  void character_class() {
    ++at_;
    bool negated = false;
    if (at_ < pattern_.size() && pattern_[at_] == '^') {
      negated = true;
      ++at_;
    }
    std::string members;
    std::string alternatives;  // negated sets inside the class, each a class of its own
    bool first = true;
    while (true) {
      if (at_ >= pattern_.size()) refuse("a '[' without an end");
      const char c = pattern_[at_];
      if (c == ']' && !first) break;
      first = false;
      if (c == '[') refuse(pattern_.substr(at_).starts_with("[:") ? "a POSIX bracket" : "a class inside a class");
      if (pattern_.substr(at_).starts_with("&&")) refuse("a class intersection '&&'");
      if (c == '\\') {
        if (auto set = set_escape()) {
          if (set->negated) {
            alternatives += fmt::format("|[^{}]", set->members);
          } else {
            // A '-' beside a set is a member, never a range.
            if (members.ends_with('-') && !members.ends_with("\\-")) {
              members.back() = '\\';
              members += '-';
            }
            members += set->members;
            if (at_ < pattern_.size() && pattern_[at_] == '-') {
              members += "\\-";
              ++at_;
            }
          }
          continue;
        }
        copy_escape(members, true);
        continue;
      }
      if (c == ']') members += '\\';  // the first member
      members += c;
      ++at_;
    }
    ++at_;
    if (alternatives.empty()) {
      out_ += negated ? "[^" : "[";
      out_ += members;
      out_ += ']';
      return;
    }
    const std::string plain = members.empty() ? "[^\\x{0}-\\x{10ffff}]" : fmt::format("[{}]", members);
    // "(?s:.)" is any one character; what follows it was refused before.
    out_ +=
        negated ? fmt::format("(?:(?!{}{})(?s:.))", plain, alternatives) : fmt::format("(?:{}{})", plain, alternatives);
  }

  /// "{n,m}": a few forms mean another thing in Ruby's syntax.
  void interval() {
    const size_t end = pattern_.find('}', at_);
    const std::string_view body =
        end == std::string_view::npos ? std::string_view() : pattern_.substr(at_ + 1, end - at_ - 1);
    const bool counts = !body.empty() && body.find_first_not_of("0123456789,") == std::string_view::npos;
    if (!counts) {
      out_ += "\\{";
      ++at_;
      return;
    }
    const char after = end + 1 < pattern_.size() ? pattern_[end + 1] : '\0';
    if (body.front() == ',' || after == '+' || (after == '?' && body.find(',') == std::string_view::npos)) {
      refuse(fmt::format("the repetition '{}'", pattern_.substr(at_, end + 2 - at_)));
    }
    out_ += pattern_.substr(at_, end + 1 - at_);
    at_ = end + 1;
  }

  /// "(?...": groups and look-around mean the same; of the option letters only i does.
  void group_options() {
    constexpr std::array<std::string_view, 6> kSame = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    for (const std::string_view opening : kSame) {
      if (pattern_.substr(at_).starts_with(opening)) {
        out_ += opening;
        at_ += opening.size();
        return;
      }
    }
    constexpr std::array<std::string_view, 4> kCase = {"(?i:", "(?i)", "(?-i:", "(?-i)"};
    for (const std::string_view opening : kCase) {
      if (pattern_.substr(at_).starts_with(opening) && (opening.back() == ':' || at_ == 0)) {
        out_ += opening;
        at_ += opening.size();
        return;
      }
    }
    refuse(fmt::format("the group '{}'", pattern_.substr(at_, 4)));
  }

  std::string_view pattern_;
  const std::string& where_;
  std::string out_;
  size_t at_ = 0;
};

}  // namespace

std::string translate_pattern(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace mxlm::text
