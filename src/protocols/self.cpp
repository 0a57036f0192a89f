#include <algorithm>

#include "base/error.hpp"
#include "protocols/job.hpp"
#include "protocols/wikitext.hpp"

namespace mxlm::protocols {

void self(const Job& job) {
  if (job.options.pad_id < 0) {
    fail_usage(
        "protocol self pads with the tokenizer's padding or end-of-sequence token, and this model names neither; use "
        "--protocol document");
  }
  std::vector<std::string_view> texts;
  std::vector<size_t> documents;
  if (is_wikitext(job.source)) {  // each row is a document, except blank rows
    for (const std::string_view row : rows_of(job.source)) {
      if (!row.empty()) texts.push_back(row);
    }
    documents.assign(texts.size(), 0);
  } else {
    for (size_t d = 0; d < job.source.documents.size(); ++d) {
      texts.push_back(job.source.documents[d].text);
      documents.push_back(d);
    }
  }
  for_each_encoded(
      job, texts.size(),
      [&](size_t i) {
        const bool blank = texts[i].find_first_not_of(" \t\r\n") == std::string_view::npos;
        return blank ? std::vector<int32_t>{} : encode_truncated(job, texts[i]);
      },
      [&](size_t i, std::vector<int32_t>&& ids) {
        if (ids.empty()) {
          ++job.out.skipped_documents;
          return;
        }
        Window window;
        window.document = static_cast<int32_t>(documents[i]);
        window.tokens = std::move(ids);
        if (window.tokens.size() < job.context()) {
          window.keys = static_cast<int32_t>(window.tokens.size());
          window.tokens.resize(job.context(), job.options.pad_id);
        }
        // Every position scores its own most likely token, so the targets only mark positions.
        window.score_begin = 1;
        window.next = job.options.pad_id;
        job.add(std::move(window));
      });
}

}  // namespace mxlm::protocols
