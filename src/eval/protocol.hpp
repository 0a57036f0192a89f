#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/documents.hpp"
#include "text/tokenizer.hpp"

namespace mxlm {

/// A piece of token stream that is run through the model alone, and which of its tokens are scored: those at positions
/// [score_begin, size) given the ones before (score_begin >= 1).
struct Window {
  std::vector<int32_t> tokens;
  int32_t score_begin = 1;
  int32_t document = 0;  // index into the source, for subsets
  double weight = 0;     // hf-stride style weights; 0 = not used
};

enum class Aggregate : uint8_t {
  token_mean,   // sum NLL / tokens
  window_mean,  // mean of window means
};

/// Special tokens around a text: what the tokenizer's template adds; that, and BOS first if it is not there yet; none
/// at all.
enum class BosPolicy : uint8_t { from_template, always, never };

struct ProtocolOptions {
  std::string name = "window";  // window document gptq llamacpp
  int64_t context = 0;          // tokens a window; set by the caller (min(model's, 2048), document: 512, llamacpp: 512)
  int64_t max_windows = 0;      // 0 = all
  BosPolicy bos = BosPolicy::from_template;
  int32_t bos_id = -1;  // for BosPolicy::always and llamacpp; -1 = none known
};

/// Windows of a source by a named protocol:
/// * window: each text tokenised once, cut into windows, the short last one kept (a last window of one token is not,
/// for
///   it scores nothing); every token but a window's first is scored.
/// * document: each document alone, truncated as the `tokenizers` library does (the template's tokens at the end stay);
///   those of fewer than two tokens are skipped and counted.
/// * gptq: the rows joined with "\n\n", tokenised once, full windows only, mean of window means. A document is a row. A
///   plain text is one row too, unless it is a raw WikiText file (every line begins and ends with a space): that stands
///   for the data set made of it, whose rows are its lines with their newlines, a blank line (" \n") being an empty
///   row.
/// * llamacpp: one text, as llama-perplexity: a final newline dropped, special tokens in the text not parsed, full
///   windows only, each one's first token replaced by BOS where the tokenizer adds one, the second half scored.
struct WindowSet {
  std::vector<Window> windows;
  Aggregate aggregate = Aggregate::token_mean;
  int64_t skipped_documents = 0;  // too short to score
  int64_t scored_tokens = 0;
};

/// Throws Error if nothing can be scored, or UsageError on an unknown name (with the known ones) or context < 2.
WindowSet make_windows(const ProtocolOptions& options, const DocumentSource& source, const Tokenizer& tokenizer);

/// Names of all protocols, for messages and help.
const std::vector<std::string>& protocol_names();

}  // namespace mxlm
