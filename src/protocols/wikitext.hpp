#pragma once

// The forms of WikiText: the raw file, the rows of the data set, its pages, and a page without the marks of
// tokenisation.

#include <string>
#include <string_view>
#include <vector>

#include "io/documents.hpp"

namespace mxlm::protocols {

/// True if every line begins with a space and ends with a space before its newline, as in the raw WikiText files (the
/// last line may lack its newline).
bool is_raw_wikitext(std::string_view text);

/// True if a source is WikiText: one raw file, or a data set whose rows are the lines of a raw file (a blank line is an
/// empty row).
bool is_wikitext(const DocumentSource& source);

/// The rows of a data set. Each document is a row, but a raw WikiText file among plain texts stands for its data set: a
/// row is a line with its newline, and a blank line (" \n") is the empty row.
std::vector<std::string_view> rows_of(const DocumentSource& source);

/// The rows joined with "\n\n", as the GPTQ scripts and the Hugging Face guide join them.
std::string join_rows(const DocumentSource& source);

/// The pages of a raw WikiText file, as the data set EleutherAI/wikitext_document_level has them: a page begins at a
/// line " = Title = ", newlines join the lines, and blank text before the first page is dropped.
std::vector<std::string> wikitext_pages(std::string_view text);

/// The raw file that a WikiText source was made of.
std::string raw_wikitext(const DocumentSource& source);

/// A page as lm-evaluation-harness scores it: its `wikitext_detokenizer`, rule for rule.
std::string detokenize_wikitext(std::string page);

/// len(re.split(r"\s+", text)) in Python: runs of white space, plus one, so white space at an end counts as an empty
/// word.
int64_t count_words(std::string_view text);

}  // namespace mxlm::protocols
