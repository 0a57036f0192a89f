#include "io/documents.hpp"

#include <simdjson.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"
#include "io/byte_source.hpp"
#include "io/file.hpp"
#include "io/sha256.hpp"

namespace mxlm {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kPiece = size_t{1} << 20;
constexpr size_t kLongestLine = size_t{256} << 20;

// Cuts a stream into lines and hashes those that were handed out.
class LineReader {
 public:
  explicit LineReader(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}

  // The next line without its newline (valid until the next call); false at the end.
  bool next(std::string_view& line, const std::string& name) {
    size_t searched = begin_;
    for (;;) {
      const size_t newline = buffer_.find('\n', searched);
      if (newline != buffer_.npos) return take(newline, 1, line);
      searched = buffer_.size();
      if (buffer_.size() - begin_ > kLongestLine) {
        fail("Line {} of {} is longer than {} MiB; cut it into documents.", number_ + 1, quote(name),
             kLongestLine >> 20);
      }
      if (!refill(searched)) {
        if (begin_ == buffer_.size()) return false;
        return take(buffer_.size(), 0, line);
      }
    }
  }

  [[nodiscard]] int64_t number() const { return number_; }
  std::string sha256() { return hash_.hex(); }

 private:
  bool take(size_t end, size_t newline, std::string_view& line) {
    line = std::string_view(buffer_).substr(begin_, end - begin_);
    hash_.update(std::as_bytes(std::span(buffer_)).subspan(begin_, end + newline - begin_));
    begin_ = end + newline;
    ++number_;
    return true;
  }

  // Moves what is left to the front (`searched` with it) and reads on.
  bool refill(size_t& searched) {
    buffer_.erase(0, begin_);
    searched -= begin_;
    begin_ = 0;
    const size_t size = buffer_.size();
    buffer_.resize(size + kPiece);
    const size_t got = source_->read(std::as_writable_bytes(std::span(buffer_)).subspan(size));
    buffer_.resize(size + got);
    return got > 0;
  }

  std::unique_ptr<ByteSource> source_;
  std::string buffer_;
  size_t begin_ = 0;
  int64_t number_ = 0;
  Sha256 hash_;
};

// The last member called `name`, as Python's json has it.
bool last_member(const dom::object& object, std::string_view name, dom::element& value) {
  bool found = false;
  for (const auto [key, member] : object) {
    if (key == name) {
      value = member;
      found = true;
    }
  }
  return found;
}

// The value of four hex digits at `text`, or -1.
int hex4(std::string_view text) {
  int value = 0;
  if (text.size() < 4) return -1;
  for (const char c : text.substr(0, 4)) {
    const auto digit = std::string_view("0123456789abcdef").find(static_cast<char>(c >= 'A' && c <= 'F' ? c + 32 : c));
    if (digit == std::string_view::npos) return -1;
    value = value * 16 + static_cast<int>(digit);
  }
  return value;
}

// Python's json takes an escape of half a surrogate pair, which is no character; here it becomes U+FFFD like other text
// that is not Unicode. Returns true if it changed anything.
bool replace_lone_surrogates(std::string& json) {
  const auto unit = [&](size_t at) {
    const std::string_view rest = std::string_view(json).substr(std::min(at, json.size()));
    return rest.starts_with("\\u") ? hex4(rest.substr(2)) : -1;
  };
  bool changed = false;
  for (size_t i = 0; (i = json.find('\\', i)) != json.npos;) {
    const int first = unit(i);
    const int second = unit(i + 6);
    if (first >= 0xd800 && first < 0xdc00 && second >= 0xdc00 && second < 0xe000) {
      i += 12;
    } else if (first >= 0xd800 && first < 0xe000) {
      json.replace(i, 6, "\\ufffd");
      changed = true;
      i += 6;
    } else {
      i += 2;  // whatever is escaped, a backslash too
    }
  }
  return changed;
}

class LineParser {
 public:
  void append(std::string_view line, const std::string& field, const std::string& where, DocumentSource& source) {
    if (line.find_first_not_of(" \t\r") == line.npos) return;
    bool changed = replace_invalid_utf8(line, valid_);
    dom::element root;
    auto error = parser_.parse(valid_).get(root);
    if (error == simdjson::STRING_ERROR && replace_lone_surrogates(valid_)) {
      changed = true;
      error = parser_.parse(valid_).get(root);
    }
    if (error != simdjson::SUCCESS)
      fail("{} is not valid JSON ({}); correct it.", where, simdjson::error_message(error));
    dom::object object;
    if (root.get(object) != simdjson::SUCCESS) fail("{} is not a JSON object; correct it.", where);
    dom::element value;
    if (!last_member(object, field, value)) {
      fail("{} has no field {}; name the one that holds the text with --field.", where, quote(field));
    }
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) {
      fail("{} has a field {} that is not a string; name another with --field.", where, quote(field));
    }
    Document document;
    document.text = text;
    dom::element meta, subset;
    dom::object members;
    std::string_view name;
    if (last_member(object, "meta", meta) && meta.get(members) == simdjson::SUCCESS &&
        last_member(members, "pile_set_name", subset) && subset.get(name) == simdjson::SUCCESS) {
      document.subset = name;
    }
    source.documents.push_back(std::move(document));
    source.invalid_utf8 += changed ? 1 : 0;
  }

 private:
  dom::parser parser_;
  std::string valid_;
};

DocumentSource read_lines(const std::string& path, std::unique_ptr<ByteSource> bytes, const std::string& field,
                          int64_t max_documents) {
  DocumentSource source;
  source.name = path;
  LineReader lines(std::move(bytes));
  LineParser parser;
  std::string_view line;
  const auto limit = static_cast<size_t>(max_documents);
  while ((limit == 0 || source.documents.size() < limit) && lines.next(line, path)) {
    throw_if_interrupted();
    parser.append(line, field, fmt::format("Line {} of {}", lines.number(), quote(path)), source);
  }
  if (source.documents.empty()) fail("{} holds no documents; name another data set.", quote(path));
  source.sha256 = lines.sha256();
  return source;
}

}  // namespace

void append_json_line(std::string_view line, const std::string& field, const std::string& where,
                      DocumentSource& source) {
  LineParser().append(line, field, where, source);
}

DocumentSource read_text(const std::string& path) {
  const auto file = open_plain(path);
  std::string bytes;
  for (;;) {
    const size_t size = bytes.size();
    // Doubling keeps the copies of a growing string few.
    const size_t piece = std::max(kPiece, size);
    bytes.resize(size + piece);
    const size_t got = file->read(std::as_writable_bytes(std::span(bytes)).subspan(size));
    bytes.resize(size + got);
    if (got < piece) break;
  }
  DocumentSource source;
  source.name = path;
  source.is_text = true;
  source.sha256 = sha256_hex(std::as_bytes(std::span(bytes)));
  Document document;
  source.invalid_utf8 = replace_invalid_utf8(bytes, document.text) ? 1 : 0;
  source.documents.push_back(std::move(document));
  return source;
}

DocumentSource read_documents(const std::string& path, const std::string& field, int64_t max_documents) {
  const std::string_view name = path;
  if (name.ends_with(".txt")) return read_text(path);
  if (name.ends_with(".jsonl")) return read_lines(path, open_plain(path), field, max_documents);
  if (name.ends_with(".jsonl.zst")) return read_lines(path, open_zstd(path), field, max_documents);
  fail("{} is not a data set that can be read; the known ones are .txt, .jsonl and .jsonl.zst files.", quote(path));
}

}  // namespace mxlm
