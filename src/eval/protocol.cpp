#include "eval/protocol.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <span>

#include "base/error.hpp"
#include "base/interrupt.hpp"

namespace mxlm {
namespace {

/// What a protocol function works with.
struct Job {
  const ProtocolOptions& options;
  const DocumentSource& source;
  const Tokenizer& tokenizer;
  WindowSet& out;

  [[nodiscard]] size_t context() const { return static_cast<size_t>(options.context); }
  [[nodiscard]] bool full() const {
    return options.max_windows > 0 && static_cast<int64_t>(out.windows.size()) >= options.max_windows;
  }
  /// Adds a window unless it has nothing to score.
  void add(std::span<const int32_t> tokens, size_t score_begin, size_t document) const {
    if (tokens.size() <= score_begin) return;
    out.scored_tokens += static_cast<int64_t>(tokens.size() - score_begin);
    out.windows.push_back({.tokens = {tokens.begin(), tokens.end()},
                           .score_begin = static_cast<int32_t>(score_begin),
                           .document = static_cast<int32_t>(document)});
  }
};

int32_t required_bos(const ProtocolOptions& options) {
  if (options.bos_id < 0) {
    fail_usage(
        "--bos always needs a beginning-of-sequence token, and neither the model's configuration nor its tokenizer "
        "names one; use --bos template or --bos never");
  }
  return options.bos_id;
}

/// Ids of a text with the special tokens that the policy asks for: the template's; the template's with BOS first; none.
std::vector<int32_t> encode(const Job& job, std::string_view text, bool parse_special = true) {
  const BosPolicy bos = job.options.bos;
  std::vector<int32_t> ids = job.tokenizer.encode(text, bos != BosPolicy::never, parse_special);
  if (bos == BosPolicy::always) {
    const int32_t id = required_bos(job.options);
    if (ids.empty() || ids.front() != id) ids.insert(ids.begin(), id);
  }
  return ids;
}

/// Cuts a stream into windows of the context without overlap.
void cut(const Job& job, std::span<const int32_t> stream, size_t document, bool keep_tail) {
  for (size_t begin = 0; begin < stream.size() && !job.full(); begin += job.context()) {
    const size_t size = std::min(job.context(), stream.size() - begin);
    if (size == job.context() || keep_tail) job.add(stream.subspan(begin, size), 1, document);
  }
}

// --- window: each text tokenised once, cut into windows, the short last window kept; all but a window's first token
//     are scored.
void window(const Job& job) {
  for (size_t d = 0; d < job.source.documents.size() && !job.full(); ++d) {
    throw_if_interrupted();
    cut(job, encode(job, job.source.documents[d].text), d, true);
  }
}

// --- document: each document alone, truncated to the context as `tokenizers` does it: the template's tokens at the end
//     stay. Documents of fewer than two tokens score nothing.
void document(const Job& job) {
  const std::vector<int32_t> suffix =
      job.options.bos == BosPolicy::never ? std::vector<int32_t>{} : job.tokenizer.suffix();
  if (suffix.size() >= job.context()) {
    fail_usage(
        "a context of {} tokens leaves no room beside the {} tokens that the tokenizer's template adds at the end; "
        "use a larger --context",
        job.options.context, suffix.size());
  }
  for (size_t d = 0; d < job.source.documents.size() && !job.full(); ++d) {
    throw_if_interrupted();
    std::vector<int32_t> ids = encode(job, job.source.documents[d].text);
    if (ids.size() > job.context()) {
      ids.resize(job.context());
      std::copy(suffix.begin(), suffix.end(), ids.end() - static_cast<std::ptrdiff_t>(suffix.size()));
    }
    if (ids.size() < 2) ++job.out.skipped_documents;
    job.add(ids, 1, d);
  }
}

/// True if every line begins with a space and ends with one before its newline, as in the raw WikiText files (the last
/// line may lack its newline).
bool is_raw_wikitext(std::string_view text) {
  if (text.empty()) return false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (line.empty() || line.front() != ' ' || line.back() != ' ') return false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return true;
}

/// The rows of a data set joined with "\n\n", as the GPTQ scripts do. Each document is a row. A raw WikiText file
/// stands for the data set that was made of it: a row is a line with its newline, and a blank line (" \n") the empty
/// row. Any other text is one row.
std::string join_rows(const DocumentSource& source) {
  std::string out;
  bool first = true;
  const auto row = [&](std::string_view text) {
    if (!first) out += "\n\n";
    out += text;
    first = false;
  };
  for (const Document& document : source.documents) {
    std::string_view text = document.text;
    if (!source.is_text || !is_raw_wikitext(text)) {
      row(text);
      continue;
    }
    while (!text.empty()) {
      const size_t size = text.find('\n') == std::string_view::npos ? text.size() : text.find('\n') + 1;
      const std::string_view line = text.substr(0, size);
      row(line.find_first_not_of(" \n") == std::string_view::npos ? std::string_view{} : line);
      text.remove_prefix(size);
    }
  }
  return out;
}

// --- gptq: the rows joined, tokenised once with special tokens, N / context windows, the tail dropped; the mean of
//     window means.
void gptq(const Job& job) {
  const std::vector<int32_t> stream = encode(job, join_rows(job.source));
  if (stream.size() < job.context()) {
    fail(
        "protocol gptq needs at least one full window of {} tokens, but '{}' has {}; use a longer text or a smaller "
        "--context",
        job.options.context, job.source.name, stream.size());
  }
  cut(job, stream, 0, false);
}

// --- llamacpp: as llama-perplexity: one final newline dropped, special tokens in the text not parsed, chunks of the
//     context, tail dropped, the first token of each chunk replaced by BOS where the tokenizer adds one, and the second
//     half scored.
void llamacpp(const Job& job) {
  if (job.source.documents.size() != 1) {
    fail_usage("protocol llamacpp reads one text, but '{}' has {} documents; use --protocol document or window",
               job.source.name, job.source.documents.size());
  }
  if (job.options.context < 3) fail_usage("protocol llamacpp needs a --context of 3 tokens or more");
  std::string_view text = job.source.documents[0].text;
  if (text.ends_with('\n')) text.remove_suffix(1);
  std::vector<int32_t> stream = encode(job, text, false);
  if (stream.size() / 2 < job.context()) {
    fail(
        "protocol llamacpp needs two windows of {} tokens, but '{}' has {} tokens; use a longer text or a smaller "
        "--context",
        job.options.context, job.source.name, stream.size());
  }
  std::optional<int32_t> bos;
  if (job.options.bos == BosPolicy::always) bos = required_bos(job.options);
  if (job.options.bos == BosPolicy::from_template && !job.tokenizer.prefix().empty()) {
    bos = job.tokenizer.prefix().front();
  }
  for (size_t begin = 0; begin + job.context() <= stream.size() && !job.full(); begin += job.context()) {
    if (bos) stream[begin] = *bos;
    job.add(std::span(stream).subspan(begin, job.context()), job.context() / 2 + 1, 0);
  }
}

struct Protocol {
  const char* name;
  void (*run)(const Job&);
  Aggregate aggregate;
};

constexpr Protocol kProtocols[] = {
    {"window", window, Aggregate::token_mean},
    {"document", document, Aggregate::token_mean},
    {"gptq", gptq, Aggregate::window_mean},
    {"llamacpp", llamacpp, Aggregate::token_mean},
};

}  // namespace

WindowSet make_windows(const ProtocolOptions& options, const DocumentSource& source, const Tokenizer& tokenizer) {
  const auto* protocol = std::find_if(std::begin(kProtocols), std::end(kProtocols),
                                      [&](const Protocol& p) { return p.name == options.name; });
  if (protocol == std::end(kProtocols)) {
    fail_usage("unknown protocol '{}'; there are {}", options.name, fmt::join(protocol_names(), ", "));
  }
  if (options.context < 2 || options.context > std::numeric_limits<int32_t>::max()) {
    fail_usage("--context must be 2 or more tokens (and fit 31 bits), not {}", options.context);
  }
  if (options.max_windows < 0) fail_usage("--max-windows must not be negative");
  WindowSet out;
  out.aggregate = protocol->aggregate;
  protocol->run({.options = options, .source = source, .tokenizer = tokenizer, .out = out});
  if (out.windows.empty()) {
    fail("'{}' has no token to score: protocol {} needs a text of at least two tokens", source.name, options.name);
  }
  return out;
}

const std::vector<std::string>& protocol_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const Protocol& protocol : kProtocols) out.emplace_back(protocol.name);
    return out;
  }();
  return names;
}

}  // namespace mxlm
