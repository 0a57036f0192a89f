#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::text {

/// A part of a text that a pattern divided: a match, or what lies between two.
struct Match {
  size_t begin;
  size_t end;
  bool is_match;
};

/// A regular expression of a tokenizer.json. Those are written for Oniguruma with its Ruby syntax; this one runs them
/// in PCRE2, after rewriting what PCRE2 takes otherwise (\s, \w, \b, Unicode categories newer than PCRE2's,
/// classes in classes, && and POSIX brackets) and refusing what it would misread.
class Regex {
 public:
  /// Throws Error, naming `where`, if the pattern is refused.
  Regex(std::string_view pattern, const std::string& where);

  /// Appends the division of `text` (valid UTF-8): matches and the parts between them, in order, covering all of it.
  /// Empty matches are kept, as the library does. May end once it is `enough` bytes into the text: what it has found
  /// until then is the same. Throws Error if a match exceeds PCRE2's limits, and Interrupted.
  void find_all(std::string_view text, std::vector<Match>& out, size_t enough = std::string_view::npos) const;

 private:
  std::string where_;
  std::shared_ptr<const void> code_;  // pcre2_code: immutable, shared by threads
};

/// The pattern as PCRE2 shall read it (for tests).
std::string translate_pattern(std::string_view pattern, const std::string& where);

}  // namespace mxlm::text
