#pragma once

#include <cstdint>
#include <functional>
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
  std::string name;     // as the user named it
  std::string sha256;   // of the bytes read
  std::vector<Document> documents;
  int64_t invalid_utf8 = 0;  // documents with bytes that became U+FFFD
  bool is_text = false;      // a plain text (window protocol by default), not a set of documents
};

/// Replaces invalid UTF-8 by U+FFFD exactly as Python's bytes.decode(errors="replace"); returns true if it changed
/// anything.
bool replace_invalid_utf8(std::string_view bytes, std::string& out);

/// Reads a plain text: bytes as they are, no newline translation. `path` "-" is stdin.
DocumentSource read_text(const std::string& path);

/// Reads a data set by extension: .txt, .jsonl, .jsonl.zst ("-" and unknown extensions are refused with the list of known
/// ones). `field` names the JSON member that holds the text. Stops after `max_documents` (0 = all).
DocumentSource read_documents(const std::string& path, const std::string& field, int64_t max_documents);

}  // namespace mxlm
