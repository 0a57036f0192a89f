#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

/// One text of a data set.
struct Document {
  std::string text;    // valid UTF-8
  std::string subset;  // "" if the source has none (The Pile: meta.pile_set_name)
};

struct DocumentSource {
  std::string name;    // as the user named it
  std::string sha256;  // of the bytes that were used: the whole text, or the lines read, after decompression;
                       // of .parquet the texts, each followed by a newline
  std::vector<Document> documents;
  int64_t invalid_utf8 = 0;  // documents with bytes (or lone surrogates) that became U+FFFD
  bool is_text = false;      // a plain text (window protocol by default), not a set of documents
};

/// Replaces invalid UTF-8 by U+FFFD exactly as Python's bytes.decode(errors="replace") (one for each maximal subpart,
/// as Unicode recommends); a byte order mark stays. Returns true if it changed anything.
bool replace_invalid_utf8(std::string_view bytes, std::string& out);

/// The most text that is read, unless a call says otherwise: a quarter of what this process may have of memory.
/// Compressed files can hold any amount.
uint64_t most_text_bytes();

/// Reads a plain text: bytes as they are, no newline translation. `path` "-" is stdin. An empty text is no error here.
/// Throws Error for one of more than `max_bytes`.
DocumentSource read_text(const std::string& path);
DocumentSource read_text(const std::string& path, uint64_t max_bytes);

/// Reads a data set by extension: .txt (one document, a text), .jsonl, .jsonl.gz, .jsonl.zst (or .json.gz, .json.zst),
/// .parquet ("-" and unknown extensions are refused with the list of known ones); or a folder of such files, sorted by
/// name (each .txt is then a document, and does not mix with others; files of other extensions, hidden ones and folders
/// in it are left out). `field` names the JSON member or the column that holds the text; of members with one name the
/// last counts, as in Python. Stops after the first `max_documents` in that order (0 = all). Throws Error naming the
/// file and line for a line that is no JSON object, lacks the field, holds something else than a string there, or is
/// longer than 256 MiB; for what read_parquet refuses; for documents that take more than `max_bytes` together; and when
/// there is none at all.
DocumentSource read_documents(const std::string& path, const std::string& field, int64_t max_documents);
DocumentSource read_documents(const std::string& path, const std::string& field, int64_t max_documents,
                              uint64_t max_bytes);

/// The documents of several files as if they were one, named `name`; each .txt is a document. With `subset`, only those
/// of that subset are kept and counted, and Error lists the ones there are if none has it.
DocumentSource read_files(const std::vector<std::string>& paths, const std::string& name, const std::string& field,
                          int64_t max_documents, const std::string& subset = "");

/// Parses one line of JSON (without its newline) as read_documents does, appending to `source`. `where` names file and
/// line in messages. A blank line adds nothing.
void append_json_line(std::string_view line, const std::string& field, const std::string& where,
                      DocumentSource& source);

}  // namespace mxlm
