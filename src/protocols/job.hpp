#pragma once

// What the protocols share: the job of each protocol, and how texts become ids.

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/protocol.hpp"

namespace mxlm::protocols {

/// What a protocol works with.
struct Job {
  const ProtocolOptions& options;
  const DocumentSource& source;
  const Tokenizer& tokenizer;
  WindowSet& out;

  [[nodiscard]] size_t context() const { return static_cast<size_t>(options.context); }
  /// Ids of a text, enough for the wanted number of windows, which are `step` apart.
  [[nodiscard]] size_t enough_ids(size_t step) const;
  /// True once there are as many windows as wanted.
  [[nodiscard]] bool full() const {
    return options.max_windows > 0 && static_cast<int64_t>(out.windows.size()) >= options.max_windows;
  }
  /// Adds a window unless it has nothing to score.
  void add(Window window) const;
  void add(std::span<const int32_t> tokens, size_t score_begin, size_t document) const;
};

/// The BOS of `--bos always`; throws UsageError if it is unknown.
int32_t required_bos(const ProtocolOptions& options);

/// Ids of a text with the special tokens of the policy: the template's, the template's with BOS first, or none. May
/// stop after the first `enough` ids.
std::vector<int32_t> encode(const Job& job, std::string_view text, bool parse_special = true, size_t enough = SIZE_MAX);

/// As encode, truncated to the context as the `tokenizers` library does it: the template's tokens at the end stay.
std::vector<int32_t> encode_truncated(const Job& job, std::string_view text);

/// Makes ids of texts [0, count) with `ids_of` on several threads, and passes them to `take` in order on this thread,
/// until there are enough windows.
void for_each_encoded(const Job& job, size_t count, const std::function<std::vector<int32_t>(size_t)>& ids_of,
                      const std::function<void(size_t, std::vector<int32_t>&&)>& take);

// The protocols; eval/protocol.hpp says what they do.
void window(const Job& job);
void document(const Job& job);
void gptq(const Job& job);
void hf_stride(const Job& job);
void llamacpp(const Job& job);
void lmeval(const Job& job);
void self(const Job& job);

}  // namespace mxlm::protocols
