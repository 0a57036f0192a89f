#include "text/regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "base/error.hpp"
#include "base/interrupt.hpp"

namespace mxlm::text {
namespace {

// Far above the needs of any real pattern, and low enough that a hostile pattern ends within seconds.
constexpr uint32_t kMatchLimit = 5'000'000;
constexpr uint32_t kHeapLimitKiB = 64 * 1024;
constexpr size_t kFirstJitStackBytes = size_t{64} << 10;
constexpr size_t kJitStackBytes = size_t{8} << 20;
constexpr size_t kMaxPattern = size_t{64} * 1024;
// The work of well under a second.
constexpr size_t kMatchesBetweenLooks = 4096;

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

/// The state that matching needs and threads cannot share.
struct Scratch {
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kFirstJitStackBytes, kJitStackBytes, nullptr);
  Scratch() {
    if (context == nullptr || data == nullptr || stack == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

}  // namespace

Regex::Regex(std::string_view pattern, const std::string& where) : where_(where) {
  if (pattern.size() > kMaxPattern) fail("{}: a regular expression of {} bytes is refused", where, pattern.size());
  const std::string translated = translate_pattern(pattern, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  // MULTILINE: in Ruby's syntax, `$` matches at the end of every line.
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context.get());
  if (code == nullptr) {
    fail("{}: PCRE2 refuses the regular expression '{}': {}", where, pattern.substr(0, 200), message_of(error));
  }
  code_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // matching without JIT is slower and gives the same result
}

void Regex::find_all(std::string_view text, std::vector<Match>& out, size_t enough) const {
  thread_local Scratch scratch;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  if (text.empty()) {
    out.push_back({0, 0, false});
    return;
  }
  size_t previous = 0;  // the end of the text in `out`
  size_t from = 0;      // where the next search starts
  bool any = false;
  for (size_t matches = 0; from <= text.size(); ++matches) {
    if (previous >= enough) return;
    if (matches % kMatchesBetweenLooks == 0) throw_if_interrupted();
    const int rc = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      fail(
          "{}: the regular expression gave up {} bytes into a text ({}); the tokenizer's pattern is too expensive for "
          "it",
          where_, from, message_of(rc));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(scratch.data);
    const size_t begin = ends[0];
    const size_t end = ends[1];
    if (begin == end && any && end == previous) {
      // An empty match right behind the previous match does not count: continue from the next character.
      ++from;
      while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xc0U) == 0x80) ++from;
      continue;
    }
    if (begin > previous) out.push_back({previous, begin, false});
    out.push_back({begin, end, true});
    from = previous = end;
    any = true;
  }
  if (previous != text.size()) out.push_back({previous, text.size(), false});
}

}  // namespace mxlm::text
