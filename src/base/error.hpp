#pragma once

#include <fmt/format.h>

#include <utility>

#include "base/quote.hpp"
#include "mxlm/error.hpp"

namespace mxlm {

/// An allocation that a device refused. Whoever cut the work into micro-batches may cut it smaller and try again.
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
