#include <algorithm>
#include <string>

#include "base/error.hpp"
#include "protocols/job.hpp"
#include "protocols/wikitext.hpp"

namespace mxlm::protocols {
namespace {

struct Page {
  std::string text;  // the scored text
  int64_t words = 0, bytes = 0;
};

Page make_page(std::string raw, bool detokenize) {
  Page page;
  page.words = count_words(raw);
  page.bytes = static_cast<int64_t>(raw.size());
  page.text = detokenize ? detokenize_wikitext(std::move(raw)) : std::move(raw);
  return page;
}

std::vector<Page> pages_of(const DocumentSource& source) {
  std::vector<Page> pages;
  if (is_wikitext(source)) {
    for (std::string& page : wikitext_pages(raw_wikitext(source))) pages.push_back(make_page(std::move(page), true));
  } else {
    for (const Document& document : source.documents) pages.push_back(make_page(document.text, false));
  }
  return pages;
}

/// Rolling windows of a page. The first window has the prefix and all except its last target. Later windows are
/// disjoint blocks of the context with one token before them; a short last block is filled with the tokens before it.
void roll(const Job& job, const std::vector<int32_t>& ids, size_t document, const Page& page) {
  const size_t context = job.context();
  for (size_t done = 0; done < ids.size() && !job.full();) {
    const size_t fresh = std::min(ids.size() - done, context);
    const size_t end = done + fresh;
    Window window;
    if (done == 0) window.tokens.push_back(job.options.prefix_id);
    const size_t begin = done == 0 ? 0 : end - context - 1;
    window.tokens.insert(window.tokens.end(), ids.begin() + static_cast<std::ptrdiff_t>(begin),
                         ids.begin() + static_cast<std::ptrdiff_t>(end - 1));
    window.next = ids[end - 1];
    window.score_begin = static_cast<int32_t>(window.tokens.size() + 1 - fresh);
    window.document = static_cast<int32_t>(document);
    if (end == ids.size()) window.note = {.weight = 0, .words = page.words, .bytes = page.bytes};
    job.add(std::move(window));
    done = end;
  }
}

}  // namespace

void lmeval(const Job& job) {
  if (job.options.prefix_id < 0) {
    fail_usage(
        "protocol lmeval begins each page with the tokenizer's beginning- or end-of-sequence token, and this model "
        "names neither; use --protocol window");
  }
  const std::string prefix = job.tokenizer.decode({job.options.prefix_id});
  const std::vector<Page> pages = pages_of(job.source);
  const bool whole = is_wikitext(job.source);
  WindowNote before;  // of pages without tokens, whose words still count
  for_each_encoded(
      job, pages.size(),
      [&](size_t p) {
        // A text with its own prefix gets no special tokens.
        if (job.options.bos == api::Bos::from_template && pages[p].text.starts_with(prefix)) {
          return job.tokenizer.encode(pages[p].text, false);
        }
        return encode(job, pages[p].text);
      },
      [&](size_t p, std::vector<int32_t>&& ids) {
        Page page = pages[p];
        page.words += before.words;
        page.bytes += before.bytes;
        before = {};
        if (ids.empty()) {
          before.words = page.words;
          before.bytes = page.bytes;
          ++job.out.skipped_documents;
        }
        roll(job, ids, whole ? 0 : p, page);
      });
  if (!job.out.windows.empty()) {
    job.out.windows.back().note.words += before.words;
    job.out.windows.back().note.bytes += before.bytes;
  }
}

}  // namespace mxlm::protocols
