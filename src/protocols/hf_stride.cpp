#include <algorithm>

#include "base/error.hpp"
#include "protocols/job.hpp"
#include "protocols/wikitext.hpp"

namespace mxlm::protocols {

/// The loop of the Hugging Face guide "Perplexity of fixed-length models". Targets are the last `fresh` tokens of a
/// window, which the window before did not have. The first token of a window has nothing before it and is not scored.
/// So the first window scores fresh - 1 tokens and each later window `fresh`, but the weight of every window's mean is
/// fresh - 1, and a last window of one fresh token has no weight.
void hf_stride(const Job& job) {
  const auto stride = static_cast<size_t>(job.out.stride);
  const std::vector<int32_t> stream =
      encode(job, join_rows(job.source), /*parse_special=*/true, job.enough_ids(stride));
  size_t before = 0;  // where the previous window ended
  for (size_t begin = 0; begin < stream.size() && before < stream.size() && !job.full(); begin += stride) {
    const size_t end = std::min(begin + job.context(), stream.size());
    const size_t size = end - begin, fresh = end - before;
    Window window;
    window.tokens.assign(stream.begin() + static_cast<std::ptrdiff_t>(begin),
                         stream.begin() + static_cast<std::ptrdiff_t>(end));
    window.score_begin = static_cast<int32_t>(std::max<size_t>(size - fresh, 1));
    window.note.weight = static_cast<double>(fresh - 1);
    before = end;
    job.add(std::move(window));
  }
}

}  // namespace mxlm::protocols
