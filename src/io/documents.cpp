#include "io/documents.hpp"

#include <fmt/ranges.h>
#include <simdjson.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/json.hpp"
#include "base/memory.hpp"
#include "base/quote.hpp"
#include "base/suggest.hpp"
#include "io/byte_source.hpp"
#include "io/file.hpp"
#include "io/parquet.hpp"
#include "io/sha256.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
namespace dom = simdjson::dom;

constexpr size_t kPiece = size_t{1} << 20;
constexpr size_t kLongestLine = size_t{256} << 20;
constexpr const char* kKnown =
    ".txt, .jsonl, .jsonl.gz, .jsonl.zst, .json.gz, .json.zst and .parquet files, and folders of them";

// Cuts a stream into lines and hashes the lines that were handed out.
class LineReader {
 public:
  LineReader(std::unique_ptr<ByteSource> source, Sha256& hash) : source_(std::move(source)), hash_(hash) {}

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

 private:
  bool take(size_t end, size_t newline, std::string_view& line) {
    line = std::string_view(buffer_).substr(begin_, end - begin_);
    hash_.update(std::as_bytes(std::span(buffer_)).subspan(begin_, end + newline - begin_));
    begin_ = end + newline;
    ++number_;
    return true;
  }

  // Moves the rest to the front (with `searched`) and reads on.
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
  Sha256& hash_;
};

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

// Python's json accepts an escape of half a surrogate pair, which is not a character. Here it becomes U+FFFD, like
// other text that is not Unicode. Returns true if it changed anything.
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
      i += 2;  // skips the escaped character, which may be a backslash
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
    // Few lines need what Python reads beyond the standard, and the search for such words takes longer.
    if (error != simdjson::SUCCESS) error = parse_python_json(parser_, valid_, root, kDepth);
    if (error == simdjson::STRING_ERROR && replace_lone_surrogates(valid_)) {
      changed = true;
      error = parse_python_json(parser_, valid_, root, kDepth);
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
  static constexpr size_t kDepth = simdjson::DEFAULT_MAX_DEPTH;
  dom::parser parser_;
  std::string valid_;
};

// The state while files are read.
struct Collected {
  DocumentSource source;
  Sha256 hash;
  size_t limit = 0;        // documents; 0 is no limit
  std::string subset;      // the only subset to keep; "" keeps all
  uint64_t max_bytes = 0;  // of documents
  uint64_t bytes = 0;
  std::set<std::string> seen;  // subsets left out, as many as a message would list

  /// Counts the document just appended, or removes it if its subset is not wanted.
  void filter(size_t before, int64_t invalid_before) {
    if (source.documents.size() == before) return;
    if (subset.empty() || source.documents.back().subset == subset) {
      const Document& document = source.documents.back();
      count(sizeof(Document) + document.text.size() + document.subset.size());
      return;
    }
    constexpr size_t kMostNames = 64;
    if (seen.size() < kMostNames && !source.documents.back().subset.empty()) {
      seen.insert(std::move(source.documents.back().subset));
    }
    source.documents.pop_back();
    source.invalid_utf8 = invalid_before;
  }
  /// A few bytes of a compressed file may stand for more text than the memory holds.
  void count(uint64_t more) {
    bytes += more;
    if (bytes <= max_bytes) return;
    fail(
        "{} holds more than {} MiB of text, a quarter of the memory that there is; read less of it with --max-samples.",
        quote(source.name), max_bytes >> 20);
  }
  [[nodiscard]] bool full() const { return limit != 0 && source.documents.size() >= limit; }
};

void append_lines(const std::string& path, std::unique_ptr<ByteSource> bytes, const std::string& field, Collected& to) {
  LineReader lines(std::move(bytes), to.hash);
  LineParser parser;
  std::string_view line;
  while (!to.full() && lines.next(line, path)) {
    throw_if_interrupted();
    const size_t before = to.source.documents.size();
    const int64_t invalid = to.source.invalid_utf8;
    parser.append(line, field, fmt::format("Line {} of {}", lines.number(), quote(path)), to.source);
    to.filter(before, invalid);
  }
}

std::string read_all(const std::string& path, uint64_t most) {
  const auto file = open_plain(path);
  std::string bytes;
  for (;;) {
    const size_t size = bytes.size();
    // Doubling limits how often a growing string is copied.
    const size_t piece = std::min<uint64_t>(std::max(kPiece, size), most - size + 1);
    bytes.resize(size + piece);
    const size_t got = file->read(std::as_writable_bytes(std::span(bytes)).subspan(size));
    bytes.resize(size + got);
    if (got < piece) return bytes;
    if (bytes.size() > most) {
      fail("{} holds more than {} MiB, a quarter of the memory that there is; cut a part out of it.", quote(path),
           most >> 20);
    }
  }
}

void append_text(const std::string& path, Collected& to) {
  const std::string bytes = read_all(path, to.max_bytes - to.bytes);
  to.hash.update(std::as_bytes(std::span(bytes)));
  Document document;
  const size_t before = to.source.documents.size();
  const int64_t invalid = to.source.invalid_utf8;
  to.source.invalid_utf8 += replace_invalid_utf8(bytes, document.text) ? 1 : 0;
  to.source.documents.push_back(std::move(document));
  to.filter(before, invalid);
}

// The hash of a Parquet file covers its texts, each followed by a newline, because the file may have been read in part.
void append_parquet(const std::string& path, const std::string& field, Collected& to) {
  read_parquet(path, field, [&](std::string_view text, std::string_view subset) {
    to.hash.update(std::as_bytes(std::span(text)));
    to.hash.update(std::as_bytes(std::span("\n", 1)));
    Document document;
    bool changed = replace_invalid_utf8(text, document.text);
    changed = replace_invalid_utf8(subset, document.subset) || changed;
    const size_t before = to.source.documents.size();
    const int64_t invalid = to.source.invalid_utf8;
    to.source.invalid_utf8 += changed ? 1 : 0;
    to.source.documents.push_back(std::move(document));
    to.filter(before, invalid);
    return !to.full();
  });
}

enum class FileKind : uint8_t { unknown, text, lines, gzip_lines, zstd_lines, parquet };

FileKind kind_of(std::string_view name) {
  if (name.ends_with(".txt")) return FileKind::text;
  if (name.ends_with(".jsonl")) return FileKind::lines;
  // C4 and others use this name for lines of JSON, too. A plain .json usually holds one value and is not a data set.
  if (name.ends_with(".jsonl.gz") || name.ends_with(".json.gz")) return FileKind::gzip_lines;
  if (name.ends_with(".jsonl.zst") || name.ends_with(".json.zst")) return FileKind::zstd_lines;
  if (name.ends_with(".parquet")) return FileKind::parquet;
  return FileKind::unknown;
}

void append_file(const std::string& path, const std::string& field, Collected& to) {
  switch (kind_of(path)) {
    case FileKind::text:
      return append_text(path, to);
    case FileKind::lines:
      return append_lines(path, open_plain(path), field, to);
    case FileKind::gzip_lines:
      return append_lines(path, decompress_gzip(open_plain(path), path), field, to);
    case FileKind::zstd_lines:
      return append_lines(path, decompress_zstd(open_plain(path), path), field, to);
    case FileKind::parquet:
      return append_parquet(path, field, to);
    case FileKind::unknown:
      break;
  }
  fail("{} is not a data set that can be read; the known ones are {}.", quote(path), kKnown);
}

// The data-set files of a folder, sorted by name. Other files (a README.md) and hidden files are left out.
std::vector<std::string> list_folder(const std::string& folder) {
  std::vector<std::string> files;
  size_t texts = 0;
  std::error_code error;
  fs::directory_iterator iterator(folder, error);
  for (; !error && iterator != fs::directory_iterator(); iterator.increment(error)) {
    const std::string name = iterator->path().filename().string();
    std::error_code ignored;
    if (name.starts_with('.') || kind_of(name) == FileKind::unknown || iterator->is_directory(ignored)) continue;
    texts += kind_of(name) == FileKind::text ? 1 : 0;
    files.push_back(iterator->path().string());
  }
  if (error) fail("The folder {} could not be read ({}); check its permissions.", quote(folder), error.message());
  if (files.empty()) fail("The folder {} holds no data set; the known ones are {}.", quote(folder), kKnown);
  if (texts != 0 && texts != files.size()) {
    fail("The folder {} holds both .txt files and others; name the file that is meant.", quote(folder));
  }
  std::sort(files.begin(), files.end());
  return files;
}

DocumentSource read_within(const std::vector<std::string>& paths, const std::string& name, const std::string& field,
                           int64_t max_documents, const std::string& subset, uint64_t max_bytes) {
  Collected collected;
  collected.source.name = name;
  collected.max_bytes = max_bytes;
  collected.limit = static_cast<size_t>(max_documents);
  collected.subset = subset;
  for (const auto& file : paths) {
    if (collected.full()) break;
    append_file(file, field, collected);
  }
  if (collected.source.documents.empty() && !subset.empty()) {
    const std::vector<std::string> known(collected.seen.begin(), collected.seen.end());
    fail("{} has no subset {}; {}.{}", quote(name), quote(subset),
         known.empty() ? "it has none at all" : fmt::format("it has {}", fmt::join(known, ", ")),
         suggestion(subset, known));
  }
  if (collected.source.documents.empty()) fail("{} holds no documents; name another data set.", quote(name));
  collected.source.sha256 = collected.hash.hex();
  return std::move(collected.source);
}

}  // namespace

void append_json_line(std::string_view line, const std::string& field, const std::string& where,
                      DocumentSource& source) {
  LineParser().append(line, field, where, source);
}

uint64_t most_text_bytes() { return memory_budget_bytes() / 4; }

DocumentSource read_text(const std::string& path) { return read_text(path, most_text_bytes()); }

DocumentSource read_text(const std::string& path, uint64_t max_bytes) {
  Collected collected;
  collected.source.name = path;
  collected.max_bytes = max_bytes;
  append_text(path, collected);
  collected.source.is_text = true;
  collected.source.sha256 = collected.hash.hex();
  return std::move(collected.source);
}

DocumentSource read_documents(const std::string& path, const std::string& field, int64_t max_documents) {
  return read_documents(path, field, max_documents, most_text_bytes());
}

DocumentSource read_documents(const std::string& path, const std::string& field, int64_t max_documents,
                              uint64_t max_bytes) {
  std::error_code ignored;
  const bool folder = fs::is_directory(path, ignored);
  if (!folder && kind_of(path) == FileKind::text) return read_text(path, max_bytes);
  return read_within(folder ? list_folder(path) : std::vector{path}, path, field, max_documents, "", max_bytes);
}

DocumentSource read_files(const std::vector<std::string>& paths, const std::string& name, const std::string& field,
                          int64_t max_documents, const std::string& subset) {
  return read_within(paths, name, field, max_documents, subset, most_text_bytes());
}

}  // namespace mxlm
