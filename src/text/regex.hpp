#pragma once

// Oniguruma's regular expressions, run by PCRE2.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::text {

/// A part of a text that a pattern divided: a match, or the text between two matches.
struct Match {
  size_t begin;
  size_t end;
  bool is_match;
};

/// A regular expression of a tokenizer.json. Such expressions use Oniguruma with its Ruby syntax. This class runs them
/// in PCRE2: it rewrites what PCRE2 reads differently (\s, \w, \b, Unicode categories newer than PCRE2's, classes in
/// classes, && and POSIX brackets) and refuses what it would misread.
class Regex {
 public:
  /// Throws Error, naming `where`, if the pattern is refused.
  Regex(std::string_view pattern, const std::string& where);

  /// Appends the division of `text` (valid UTF-8): matches and the parts between them, in order, covering the whole
  /// text. Empty matches stay, as in the library. May stop after `enough` bytes of the text; the parts so far are the
  /// same. Throws Error if a match exceeds PCRE2's limits, and Interrupted.
  void find_all(std::string_view text, std::vector<Match>& out, size_t enough = std::string_view::npos) const;

 private:
  std::string where_;
  std::shared_ptr<const void> code_;  // pcre2_code: immutable, shared by threads
};

/// The pattern in PCRE2's syntax (for tests).
std::string translate_pattern(std::string_view pattern, const std::string& where);

}  // namespace mxlm::text
