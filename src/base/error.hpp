#pragma once

// How the code reports errors: `fail` for a user's mistake, with one sentence that says what is wrong, where, and what
// to do.

#include <fmt/format.h>

#include <utility>

#include "base/quote.hpp"
#include "mxlm/error.hpp"

namespace mxlm {

/// A device refused an allocation. The caller that chose the micro-batches may try again with smaller ones.
class OutOfDeviceMemory : public Error {
 public:
  using Error::Error;
};

/// Throws `Error` with a formatted sentence, as message_text makes it.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
  throw Error(message_text(fmt::format(text, std::forward<Args>(args)...)));
}

/// Throws `UsageError` with a formatted sentence, as message_text makes it.
template <typename... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> text, Args&&... args) {
  throw UsageError(message_text(fmt::format(text, std::forward<Args>(args)...)));
}

}  // namespace mxlm
