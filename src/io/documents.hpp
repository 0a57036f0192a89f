#pragma once

// Texts and data sets, read from files.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

/// A text of a data set.
struct Document {
  std::string text;    // valid UTF-8
  std::string subset;  // "" if the source has no subsets (The Pile: meta.pile_set_name)
};

struct DocumentSource {
  std::string name;    // the user's name for it
  std::string sha256;  // of the bytes that were used: the whole text, or the lines read, after decompression;
                       // of .parquet the texts, each followed by a newline
  std::vector<Document> documents;
  int64_t invalid_utf8 = 0;  // documents with bytes (or lone surrogates) that became U+FFFD
  bool is_text = false;      // a plain text (window protocol by default), not a set of documents
};

/// Replaces invalid UTF-8 by U+FFFD, exactly as Python's bytes.decode(errors="replace") does (one for each maximal
/// subpart, as Unicode recommends). A byte order mark stays. Returns true if it changed anything.
bool replace_invalid_utf8(std::string_view bytes, std::string& out);

/// The default limit of text that is read: a quarter of the memory that this process may use. Compressed files can hold
/// any amount.
uint64_t most_text_bytes();

/// Reads a plain text: unchanged bytes, no newline translation. `path` "-" is stdin. An empty text is not an error
/// here. Throws Error for a text of more than `max_bytes`.
DocumentSource read_text(const std::string& path);
DocumentSource read_text(const std::string& path, uint64_t max_bytes);

/// Reads a data set by its extension: .txt (one document, a text), .jsonl, .jsonl.gz, .jsonl.zst (or .json.gz,
/// .json.zst), .parquet. "-" and unknown extensions are refused with the list of known ones. A folder of such files is
/// read in name order; each .txt is then a document and does not mix with others; hidden files, files of other
/// extensions and subfolders are left out. `field` names the JSON member or the column with the text; of members with
/// the same name the last counts, as in Python. Stops after the first `max_documents` (0 = all). Throws Error naming
/// the file and line for a line that is not a JSON object, lacks the field, holds something else than a string in it,
/// or is longer than 256 MiB; for what read_parquet refuses; for documents of more than `max_bytes` together; and if
/// there is no document at all.
DocumentSource read_documents(const std::string& path, const std::string& field, int64_t max_documents);
DocumentSource read_documents(const std::string& path, const std::string& field, int64_t max_documents,
                              uint64_t max_bytes);

/// Reads several files as one data set called `name`; each .txt is a document. With `subset`, only documents of that
/// subset are kept and counted, and Error lists the existing subsets if no document has it.
DocumentSource read_files(const std::vector<std::string>& paths, const std::string& name, const std::string& field,
                          int64_t max_documents, const std::string& subset = "");

/// Parses a line of JSON (without its newline) as read_documents does, and appends to `source`. `where` names file and
/// line in messages. A blank line adds nothing.
void append_json_line(std::string_view line, const std::string& field, const std::string& where,
                      DocumentSource& source);

}  // namespace mxlm
