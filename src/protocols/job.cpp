#include "protocols/job.hpp"

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/parallel.hpp"

namespace mxlm::protocols {

void Job::add(Window window) const {
  if (window.tokens.size() < static_cast<size_t>(window.score_begin) || window.scored() == 0) return;
  out.scored_tokens += static_cast<int64_t>(window.scored());
  out.windows.push_back(std::move(window));
}

void Job::add(std::span<const int32_t> tokens, size_t score_begin, size_t document) const {
  Window window;
  window.tokens.assign(tokens.begin(), tokens.end());
  window.score_begin = static_cast<int32_t>(score_begin);
  window.document = static_cast<int32_t>(document);
  add(std::move(window));
}

size_t Job::enough_ids(size_t step) const {
  if (options.max_windows <= 0) return SIZE_MAX;
  const auto windows = static_cast<size_t>(options.max_windows);
  if (windows > (SIZE_MAX - context()) / step) return SIZE_MAX;
  return (windows - 1) * step + context();
}

int32_t required_bos(const ProtocolOptions& options) {
  if (options.bos_id < 0) {
    fail_usage(
        "--bos always needs a beginning-of-sequence token, and neither the model's configuration nor its tokenizer "
        "names one; use --bos template or --bos never");
  }
  return options.bos_id;
}

std::vector<int32_t> encode(const Job& job, std::string_view text, bool parse_special, size_t enough) {
  const api::Bos bos = job.options.bos;
  std::vector<int32_t> ids = job.tokenizer.encode(text, bos != api::Bos::never, parse_special, enough);
  if (bos == api::Bos::always) {
    const int32_t id = required_bos(job.options);
    if (ids.empty() || ids.front() != id) ids.insert(ids.begin(), id);
  }
  return ids;
}

std::vector<int32_t> encode_truncated(const Job& job, std::string_view text) {
  const bool special = job.options.bos != api::Bos::never;
  const std::vector<int32_t> suffix = special ? job.tokenizer.suffix() : std::vector<int32_t>{};
  const size_t added = suffix.size() + (special ? job.tokenizer.prefix().size() : 0);
  if (added >= job.context()) {
    fail_usage(
        "a context of {} tokens leaves no room beside the {} tokens that the tokenizer's template adds; use a larger "
        "--context",
        job.options.context, added);
  }
  // One id more than fits shows that there are more.
  std::vector<int32_t> ids = encode(job, text, /*parse_special=*/true, job.context() + 1);
  if (ids.size() > job.context()) {
    ids.resize(job.context());
    std::copy(suffix.begin(), suffix.end(), ids.end() - static_cast<std::ptrdiff_t>(suffix.size()));
  }
  return ids;
}

void for_each_encoded(const Job& job, size_t count, const std::function<std::vector<int32_t>(size_t)>& ids_of,
                      const std::function<void(size_t, std::vector<int32_t>&&)>& take) {
  // Threads wait for each other at the end of a block, so blocks are long, unless few windows are wanted.
  const size_t texts_a_thread = job.options.max_windows > 0 ? 32 : 1024;
  const auto workers = static_cast<size_t>(std::max(job.options.loader_workers, 1));
  const size_t block = workers == 1 ? 1 : texts_a_thread * workers;
  ThreadPool pool(static_cast<int>(std::min(workers, std::max<size_t>(count, 1))));
  std::vector<std::vector<int32_t>> ids(std::min(block, count));
  for (size_t begin = 0; begin < count && !job.full(); begin += block) {
    const size_t size = std::min(block, count - begin);
    pool.run(static_cast<int64_t>(size),
             [&](int64_t i, int /*worker*/) { ids[static_cast<size_t>(i)] = ids_of(begin + static_cast<size_t>(i)); });
    for (size_t i = 0; i < size && !job.full(); ++i) take(begin + i, std::exchange(ids[i], {}));
  }
}

}  // namespace mxlm::protocols
