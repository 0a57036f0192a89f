// Rewrites a pattern from Oniguruma's Ruby syntax to PCRE2's.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

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

/// Script and binary names that are passed on; PCRE2's own Unicode version decides about their newest members.
constexpr std::array<std::string_view, 16> kScripts = {
    "Han",    "Hiragana", "Katakana", "Hangul", "Latin",      "Greek",   "Cyrillic", "Arabic",
    "Hebrew", "Thai",     "Lao",      "Khmer",  "Devanagari", "Bengali", "Tamil",    "Armenian"};

/// Ranges, as members of a class, of the code points newer than PCRE2's Unicode whose category `takes` accepts.
std::string newer_members(std::span<const uint32_t> ranges) {
  std::string out;
  for (size_t i = 0; i + 1 < ranges.size(); i += 2)
    out += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", ranges[i], ranges[i + 1]);
  return out;
}

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

/// A category by its short name: itself and its newer code points, as members of a class. nullopt: unknown.
std::optional<std::string> category_members(std::string_view name) {
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

/// The meaning of "[:name:]" and "\\p{name}", as members of a class. nullopt: unknown.
std::optional<std::string> posix_members(std::string_view name) {
  const auto categories = [](std::initializer_list<std::string_view> names) {
    std::string out;
    for (const std::string_view n : names) out += category_members(n).value_or(std::string());
    return out;
  };
  const auto alphabetic = [] { return "\\p{Alphabetic}" + newer_members(newer_alphabetic()); };
  if (name == "alpha") return alphabetic();
  if (name == "alnum") return alphabetic() + categories({"Nd"});
  if (name == "upper") return "\\p{Uppercase}" + newer_members(newer_uppercase());
  if (name == "lower") return "\\p{Lowercase}" + newer_members(newer_lowercase());
  if (name == "digit") return categories({"Nd"});
  if (name == "xdigit") return "0-9a-fA-F";
  if (name == "ascii") return "\\x{0}-\\x{7f}";
  if (name == "space") return std::string(kSpaceMembers);
  if (name == "blank") return "\\x09" + categories({"Zs"});
  if (name == "cntrl") return categories({"Cc"});
  if (name == "punct") return categories({"P", "S"});
  if (name == "graph") return categories({"L", "M", "N", "P", "S", "Cf", "Co"});
  if (name == "print") return categories({"L", "M", "N", "P", "S", "Cf", "Co", "Zs"});
  if (name == "word") return alphabetic() + categories({"M", "Nd", "Pc"});
  return std::nullopt;
}

/// The meaning of a property. Case, spaces, '-' and '_' of its name do not matter.
std::optional<std::string> property_members(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 45> kLongNames = {{
      {"letter", "L"},
      {"uppercaseletter", "Lu"},
      {"lowercaseletter", "Ll"},
      {"titlecaseletter", "Lt"},
      {"modifierletter", "Lm"},
      {"otherletter", "Lo"},
      {"mark", "M"},
      {"combiningmark", "M"},
      {"nonspacingmark", "Mn"},
      {"spacingmark", "Mc"},
      {"enclosingmark", "Me"},
      {"number", "N"},
      {"decimalnumber", "Nd"},
      {"letternumber", "Nl"},
      {"othernumber", "No"},
      {"punctuation", "P"},
      {"punct", "P"},
      {"connectorpunctuation", "Pc"},
      {"dashpunctuation", "Pd"},
      {"openpunctuation", "Ps"},
      {"closepunctuation", "Pe"},
      {"initialpunctuation", "Pi"},
      {"finalpunctuation", "Pf"},
      {"otherpunctuation", "Po"},
      {"symbol", "S"},
      {"mathsymbol", "Sm"},
      {"currencysymbol", "Sc"},
      {"modifiersymbol", "Sk"},
      {"othersymbol", "So"},
      {"separator", "Z"},
      {"spaceseparator", "Zs"},
      {"lineseparator", "Zl"},
      {"paragraphseparator", "Zp"},
      {"control", "Cc"},
      {"format", "Cf"},
      {"privateuse", "Co"},
      {"unassigned", "Cn"},
      {"other", "C"},
      {"alphabetic", "alpha"},
      {"uppercase", "upper"},
      {"lowercase", "lower"},
      {"whitespace", "space"},
      {"hani", "Han"},
      {"hira", "Hiragana"},
      {"kana", "Katakana"},
  }};
  std::string plain;
  for (const char c : name) {
    if (c == ' ' || c == '-' || c == '_') continue;
    plain += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  }
  std::string_view known = plain;
  for (const auto& [full, brief] : kLongNames) {
    if (known == full) {
      known = brief;
      break;
    }
  }
  if (known == "any") return "\\x{0}-\\x{10ffff}";
  if (auto posix = posix_members(known)) return posix;
  const auto same = [&](std::string_view other) {
    return known.size() == other.size() &&
           std::equal(known.begin(), known.end(), other.begin(), [](char x, char y) { return (x | 32) == (y | 32); });
  };
  for (const std::string_view category : kCategoryNames) {
    if (same(category)) return category_members(category);
    if (same(category.substr(0, 1))) return category_members(category.substr(0, 1));
  }
  for (const std::string_view script : kScripts) {
    if (same(script)) return fmt::format("\\p{{sc:{}}}", script);
  }
  return std::nullopt;
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        atom_ = out_.size();
        outside_class();
      } else if (c == '[') {
        atom_ = out_.size();
        ++at_;
        out_ += matcher_of(character_class(0));
      } else if (c == '(' && pattern_.substr(at_).starts_with("(*")) {
        refuse("a verb '(*'");
      } else if (c == '(') {
        open_groups_.push_back(out_.size());
        group_options();
      } else if (c == '{') {
        interval();
      } else {
        if (c == ')' && !open_groups_.empty()) {
          atom_ = open_groups_.back();
          open_groups_.pop_back();
        } else if (c != '*' && c != '+' && c != '?' && (static_cast<unsigned char>(c) & 0xc0U) != 0x80) {
          atom_ = out_.size();
        }
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

  /// After a backslash: the members of \s \d \w \p{..} or \h, and whether the escape negates them.
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
        return Set{category_members("Nd").value_or(std::string()), c == 'D'};
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
        if (begin >= pattern_.size() || pattern_[begin] != '{') return std::nullopt;
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
      to += c;  // also the first byte of a longer character, whose other bytes follow
      at_ += 2;
      return;
    }
    // Oniguruma takes \pL for the letters p and L.
    if (c == 'p' || c == 'P') {
      to += c;
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
    if (c == 'R') {
      out_ += "(?>\\r\\n|[\\x0a-\\x0d\\x{85}\\x{2028}\\x{2029}])";
      at_ += 2;
      return;
    }
    copy_escape(out_, false);
  }

  /// The contents of a class: members in PCRE2's syntax, and expressions that each match one character.
  struct Class {
    std::string members;
    std::string alternatives;  // each begins with a '|'
    bool negated = false;
  };

  static std::string matcher_of(const Class& c) {
    if (c.alternatives.empty()) return fmt::format("{}{}]", c.negated ? "[^" : "[", c.members);
    const std::string plain = c.members.empty() ? "[^\\x{0}-\\x{10ffff}]" : fmt::format("[{}]", c.members);
    // "(?s:.)" is any one character; anything after it was refused before.
    return c.negated ? fmt::format("(?:(?!{}{})(?s:.))", plain, c.alternatives)
                     : fmt::format("(?:{}{})", plain, c.alternatives);
  }

  /// Adds a set to a class. A '-' beside a set is a member, never a range.
  void add_members(Class& to, std::string_view members) {
    if (to.members.ends_with('-') && !to.members.ends_with("\\-")) {
      to.members.back() = '\\';
      to.members += '-';
    }
    to.members += members;
    if (at_ < pattern_.size() && pattern_[at_] == '-') {
      to.members += "\\-";
      ++at_;
    }
  }

  /// "[:name:]" or "[:^name:]".
  void posix_bracket(Class& to) {
    const size_t end = pattern_.find(":]", at_ + 2);
    if (end == std::string_view::npos) refuse("'[:' without an end");
    std::string_view name = pattern_.substr(at_ + 2, end - at_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    const auto members = posix_members(name);
    if (!members) refuse(fmt::format("the POSIX bracket '{}'", name.substr(0, 60)));
    at_ = end + 2;
    if (negated) {
      to.alternatives += fmt::format("|[^{}]", *members);
    } else {
      add_members(to, *members);
    }
  }

  void nested_class(Class& to, int depth) {
    // Oniguruma reads a range that ends in a class in a peculiar way.
    const bool after_range = to.members.ends_with('-') && to.members != "-" && !to.members.ends_with("\\-");
    ++at_;
    const Class inner = character_class(depth + 1);
    const bool before_range = pattern_.substr(at_).starts_with('-') && !pattern_.substr(at_).starts_with("-]");
    if (after_range || before_range) refuse("a '-' beside a class inside a class");
    if (inner.negated) {
      to.alternatives += '|' + matcher_of(inner);
      return;
    }
    to.alternatives += inner.alternatives;
    if (inner.members.empty()) return;
    if (to.members == "-") to.members = "\\-";
    std::string members = inner.members;
    if (members.starts_with('-')) members.insert(0, "\\");
    if (members.ends_with('-') && !members.ends_with("\\-")) members.insert(members.size() - 1, "\\");
    to.members += members;
  }

  /// Reads a class up to its ']' included; `at_` is behind its '['.
  Class character_class(int depth) {
    constexpr int kMaxDepth = 16;
    if (depth > kMaxDepth) refuse("classes nested too deeply");
    bool negated = false;
    if (at_ < pattern_.size() && pattern_[at_] == '^') {
      negated = true;
      ++at_;
    }
    Class current;
    std::string intersected;  // the parts that "&&" has closed, as look-ahead
    bool first = true;
    while (true) {
      if (at_ >= pattern_.size()) refuse("a '[' without an end");
      const char c = pattern_[at_];
      if (c == ']' && !first) break;
      const std::string_view rest = pattern_.substr(at_);
      if (rest.starts_with("&&")) {
        if (current.members.empty() && current.alternatives.empty()) refuse("'&&' with nothing before it");
        intersected += fmt::format("(?={})", matcher_of(current));
        current = Class();
        at_ += 2;
        continue;
      }
      first = false;
      if (rest.starts_with("[:")) {
        posix_bracket(current);
        continue;
      }
      if (c == '[') {
        nested_class(current, depth);
        continue;
      }
      if (c == '\\') {
        if (auto set = set_escape()) {
          if (set->negated) {
            current.alternatives += fmt::format("|[^{}]", set->members);
          } else {
            add_members(current, set->members);
          }
          continue;
        }
        copy_escape(current.members, true);
        continue;
      }
      if (c == ']') current.members += '\\';  // the first member
      current.members += c;
      ++at_;
    }
    ++at_;
    if (!intersected.empty()) {
      if (current.members.empty() && current.alternatives.empty()) refuse("'&&' with nothing behind it");
      Class all;
      all.alternatives = '|' + intersected + matcher_of(current);
      current = std::move(all);
    }
    current.negated = negated;
    return current;
  }

  /// "{n,m}": a few forms have another meaning in Ruby's syntax.
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
    if (body == ",") refuse("the repetition '{,}'");
    const std::string count = fmt::format("{{{}{}}}", body.front() == ',' ? "0" : "", body);
    const bool fixed = body.find(',') == std::string_view::npos;
    at_ = end + 1;
    // "{n,m}+" repeats the repetition, and "{n}?" makes it optional.
    if (after == '+' || (after == '?' && fixed)) {
      if (out_.empty()) refuse("a repetition of nothing");
      out_.insert(atom_, "(?:");
      out_ += count + ")";
      return;
    }
    out_ += count;
  }

  /// "(?...": groups and look-around mean the same; names of groups can be dropped, because nothing refers to them.
  void group_options() {
    const std::string_view rest = pattern_.substr(at_);
    if (!rest.starts_with("(?")) {
      out_ += '(';
      ++at_;
      return;
    }
    constexpr std::array<std::string_view, 6> kSame = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    for (const std::string_view opening : kSame) {
      if (rest.starts_with(opening)) {
        out_ += opening;
        at_ += opening.size();
        return;
      }
    }
    if (const size_t end = rest.find('>'); rest.starts_with("(?<") && end != std::string_view::npos && end > 3) {
      constexpr std::string_view kNameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
      const std::string_view name = rest.substr(3, end - 3);
      const bool starts_with_digit = name.front() >= '0' && name.front() <= '9';
      if (starts_with_digit || name.find_first_not_of(kNameCharacters) != std::string_view::npos) {
        refuse(fmt::format("the name of the group '{}'", rest.substr(0, std::min<size_t>(end + 1, 60))));
      }
      out_ += "(?:";
      at_ += end + 1;
      return;
    }
    if (rest.starts_with("(?#")) {
      const size_t end = rest.find(')');
      if (end == std::string_view::npos) refuse("a comment without an end");
      open_groups_.pop_back();
      at_ += end + 1;
      return;
    }
    // Of the option letters, i means the same, and m lets a dot match line ends.
    const size_t end = rest.find_first_not_of("im-", 2);
    if (end != std::string_view::npos && end > 2 && (rest[end] == ':' || (rest[end] == ')' && at_ == 0))) {
      for (const char c : rest.substr(0, end + 1)) out_ += c == 'm' ? 's' : c;
      if (rest[end] == ')') open_groups_.pop_back();
      at_ += end + 1;
      return;
    }
    refuse(fmt::format("the group '{}'", rest.substr(0, 4)));
  }

  std::string_view pattern_;
  const std::string& where_;
  std::string out_;
  size_t at_ = 0;
  size_t atom_ = 0;                  // the start in out_ of what a repetition repeats
  std::vector<size_t> open_groups_;  // the start of each in out_
};

}  // namespace

std::string translate_pattern(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace mxlm::text
