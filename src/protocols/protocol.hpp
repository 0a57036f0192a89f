#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.hpp"
#include "io/documents.hpp"
#include "mxlm/options.hpp"
#include "text/tokenizer.hpp"

namespace mxlm {

/// What a protocol wants to know of a window when figures are made.
struct WindowNote {
  double weight = 0;             // Aggregate::weighted_windows: of the window's mean
  int64_t words = 0, bytes = 0;  // lmeval: of the page that ends with this window; 0 in the middle of a page
};

/// A piece of token stream that is run through the model alone, and which of its tokens are scored: those at positions
/// [score_begin, size) given the ones before (score_begin >= 1), and `next`, if there is one.
struct Window {
  std::vector<int32_t> tokens;
  int32_t score_begin = 1;
  int32_t document = 0;  // index into the source, for subsets
  int32_t next = -1;     // the token after the last one, which no position reads but which is scored; -1 = none
  int32_t keys = 0;      // tokens from here on are padding, which no position attends to; 0 = there is none
  WindowNote note;
  int64_t tokens_left_out = 0;  // of windows between the one before and this one that ProtocolOptions::windows drops
  [[nodiscard]] size_t scored() const {
    return tokens.size() - static_cast<size_t>(score_begin) + (next >= 0 ? 1U : 0U);
  }
  /// The token at position t, up to size() where `next` is.
  [[nodiscard]] int32_t target(size_t t) const { return t < tokens.size() ? tokens[t] : next; }
};

enum class Aggregate : uint8_t {
  token_mean,        // sum NLL / tokens
  window_mean,       // mean of window means
  weighted_windows,  // mean of window means, weighted by WindowNote::weight
};

/// What is independent of its neighbours when errors are made: each document, each page of lmeval, or else stretches of
/// the text (see make_clusters).
enum class ClusterUnit : uint8_t { document, page, stretch };

struct ProtocolOptions {
  std::string name = "window";  // one of protocol_names()
  int64_t context = 0;          // tokens a window; set by the caller, see default_context()
  int64_t stride = 0;           // hf-stride: tokens between the starts of windows; 0 = min(512, context)
  int64_t max_windows = 0;      // the first of them; 0 = all
  int64_t windows = 0;          // so many, spread evenly over all of them; 0 = all
  /// Special tokens around a text: what the tokenizer's template adds; that, and BOS first if it is not there yet; none
  /// at all.
  api::Bos bos = api::Bos::from_template;
  int32_t bos_id = -1;     // for api::Bos::always and llamacpp; -1 = none known
  int32_t prefix_id = -1;  // lmeval: what a page begins with: the tokenizer's BOS, else its EOS
  int32_t pad_id = -1;     // self: what documents are padded with: the tokenizer's padding token, else its EOS
  int loader_workers = 1;  // threads that tokenise; changes no digit
};

/// Windows of a source by a named protocol:
/// * window: each text is tokenised once and cut into windows. The short last window is kept, unless it has one
///   token, which would score nothing. Every token except the first of a window is scored.
/// * document: each document alone, truncated as the `tokenizers` library does it (the template's tokens at the end
///   stay). Documents of fewer than two tokens are skipped and counted.
/// * gptq: the rows joined with "\n\n" and tokenised once; full windows only; the mean of the windows' means. A
///   document is a row. A plain text is one row, too, unless it is a raw WikiText file (every line begins and ends
///   with a space): such a file stands for its data set, whose rows are the lines with their newlines; a blank line
///   (" \n") is an empty row.
/// * llamacpp: one text, as llama-perplexity reads it: a final newline is dropped, special tokens in the text are not
///   parsed, full windows only, BOS replaces the first token of each window if the tokenizer adds BOS, and the second
///   half of a window is scored.
/// * hf-stride: the rows joined as for gptq; a window of the context every `stride` tokens, of which only the tokens
///   that the window before did not have are scored; the mean of each window is weighted as in the Hugging Face
///   guide.
/// * lmeval: as lm-evaluation-harness 0.4 in a rolling log-likelihood task: each document is a page (a raw WikiText
///   file holds a page for each title, and its detokenised text is scored). Every token of a page is scored once, the
///   first token after a prefix token.
/// * self: each document (of a raw WikiText file: each line that is not blank), truncated and padded on the right to
///   the context. Every position, padding included, scores its own most likely token. This is not a perplexity.
struct WindowSet {
  std::vector<Window> windows;
  Aggregate aggregate = Aggregate::token_mean;
  ScoreKind kind = ScoreKind::next_token;
  ClusterUnit cluster_unit = ClusterUnit::stretch;
  int64_t stride = 0;             // of hf-stride, else 0
  int64_t skipped_documents = 0;  // too short to score
  int64_t scored_tokens = 0;
};

/// With ProtocolOptions::windows = N and more windows than that, window floor((i + 1/2) total / N) for each i < N
/// stays. Throws Error if nothing can be scored, or UsageError on an unknown name (with the known ones), context < 2,
/// or windows that lmeval, whose figures are those of whole pages, cannot spread.
WindowSet make_windows(const ProtocolOptions& options, const DocumentSource& source, const Tokenizer& tokenizer);

/// Names of all protocols, for messages and help.
const std::vector<std::string>& protocol_names();

/// The context that a protocol uses unless told otherwise, for a model of that many positions.
int64_t default_context(const std::string& protocol, int64_t max_positions);

}  // namespace mxlm
