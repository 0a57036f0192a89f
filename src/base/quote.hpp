#pragma once

// Text from outside, made safe for messages, tables, terminals and shells.

#include <string>
#include <string_view>

namespace mxlm {

/// The first character of a text in UTF-8.
struct Character {
  /// The value of `code` if the first byte begins no valid sequence.
  static constexpr char32_t kInvalid = 0xFFFFFFFF;
  char32_t code = kInvalid;
  size_t bytes = 1;  // 1 for an invalid byte
};
/// `text` must not be empty.
Character first_character(std::string_view text);

/// True for a character that a terminal or a reader could take for more than a character of a name: an invalid byte, a
/// control character (C0, DEL, and C1, which 8-bit terminals obey), a line or paragraph separator, a mark that changes
/// the direction of text, or a byte order mark.
bool disrupts_text(char32_t code);

/// Text from outside in a form that is safe on one line of a message, a table or a terminal: a '?' replaces each
/// character that disrupts_text names, newlines and tabs included.
std::string printable_text(std::string_view text);

/// The same for text of several lines: newlines and tabs stay.
std::string printable_lines(std::string_view text);

/// A message in a form that is safe for every terminal, whatever quoted files hold: one line, no control characters, at
/// most 4096 bytes.
std::string message_text(std::string_view text);

/// A name from a file in a form for messages: printable, in single quotes, at most 120 bytes.
std::string quote(std::string_view name);

/// An argument in a form that a POSIX shell reads back: unchanged if nothing in it is special, else in single quotes.
std::string shell_quote(std::string_view argument);

}  // namespace mxlm
