#pragma once

#include <string>
#include <string_view>

namespace mxlm {

/// The first character of a text in UTF-8.
struct Character {
  /// What `code` is where the first byte begins no valid sequence.
  static constexpr char32_t kInvalid = 0xFFFFFFFF;
  char32_t code = kInvalid;
  size_t bytes = 1;  // 1 for an invalid byte
};
/// `text` must not be empty.
Character first_character(std::string_view text);

/// True for what a terminal, or a reader, could take for more than a character of a name: invalid bytes, control
/// characters (C0, DEL, and C1, which 8-bit terminals obey), line and paragraph separators, marks that change the
/// direction of the text after them, and byte order marks.
bool disrupts_text(char32_t code);

/// Text from outside as it may stand on a line of a message, a table or a terminal: each character that disrupts_text
/// names, newlines and tabs included, is a '?'.
std::string printable_text(std::string_view text);

/// The same for text of several lines: newlines and tabs stay.
std::string printable_lines(std::string_view text);

/// A message as every terminal may be given it, whatever the files that it quotes hold: on one line, without control
/// characters, and cut after 4096 bytes.
std::string message_text(std::string_view text);

/// A name that came from a file, as it may stand in a message: printable, in single quotes, cut after 120 bytes.
std::string quote(std::string_view name);

/// An argument as a POSIX shell reads it back: as it is where nothing in it is special, else in single quotes.
std::string shell_quote(std::string_view argument);

}  // namespace mxlm
