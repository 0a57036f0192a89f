// window, document, gptq, llamacpp: disjoint pieces of a token stream.

#include <algorithm>
#include <optional>
#include <span>

#include "base/error.hpp"
#include "protocols/job.hpp"
#include "protocols/wikitext.hpp"

namespace mxlm::protocols {
namespace {

/// Cuts a stream into windows of the context without overlap.
void cut(const Job& job, std::span<const int32_t> stream, size_t document, bool keep_tail) {
  for (size_t begin = 0; begin < stream.size() && !job.full(); begin += job.context()) {
    const size_t size = std::min(job.context(), stream.size() - begin);
    if (size == job.context() || keep_tail) job.add(stream.subspan(begin, size), 1, document);
  }
}

}  // namespace

void window(const Job& job) {
  const auto& documents = job.source.documents;
  for_each_encoded(
      job, documents.size(),
      [&](size_t d) { return encode(job, documents[d].text, /*parse_special=*/true, job.enough_ids(job.context())); },
      [&](size_t d, std::vector<int32_t>&& ids) { cut(job, ids, d, true); });
}

void document(const Job& job) {
  const auto& documents = job.source.documents;
  for_each_encoded(
      job, documents.size(), [&](size_t d) { return encode_truncated(job, documents[d].text); },
      [&](size_t d, std::vector<int32_t>&& ids) {
        if (ids.size() < 2) ++job.out.skipped_documents;
        job.add(ids, 1, d);
      });
}

void gptq(const Job& job) {
  const std::vector<int32_t> stream =
      encode(job, join_rows(job.source), /*parse_special=*/true, job.enough_ids(job.context()));
  if (stream.size() < job.context()) {
    fail(
        "protocol gptq needs at least one full window of {} tokens, but '{}' has {}; use a longer text or a smaller "
        "--context",
        job.options.context, job.source.name, stream.size());
  }
  cut(job, stream, 0, false);
}

void llamacpp(const Job& job) {
  if (job.source.documents.size() != 1) {
    fail_usage("protocol llamacpp reads one text, but '{}' has {} documents; use --protocol document or window",
               job.source.name, job.source.documents.size());
  }
  if (job.options.context < 3) fail_usage("protocol llamacpp needs a --context of 3 tokens or more");
  std::string_view text = job.source.documents[0].text;
  if (text.ends_with('\n')) text.remove_suffix(1);
  std::vector<int32_t> stream =
      encode(job, text, /*parse_special=*/false, std::max(job.enough_ids(job.context()), 2 * job.context()));
  if (stream.size() / 2 < job.context()) {
    fail(
        "protocol llamacpp needs two windows of {} tokens, but '{}' has {} tokens; use a longer text or a smaller "
        "--context",
        job.options.context, job.source.name, stream.size());
  }
  std::optional<int32_t> bos;
  if (job.options.bos == api::Bos::always) bos = required_bos(job.options);
  if (job.options.bos == api::Bos::from_template && !job.tokenizer.prefix().empty()) {
    bos = job.tokenizer.prefix().front();
  }
  for (size_t begin = 0; begin + job.context() <= stream.size() && !job.full(); begin += job.context()) {
    if (bos) stream[begin] = *bos;
    job.add(std::span(stream).subspan(begin, job.context()), job.context() / 2 + 1, 0);
  }
}

}  // namespace mxlm::protocols
