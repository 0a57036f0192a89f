#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace mxlm {

/// Something a user can cause: a sentence that says what was wrong, where, and what to do. Ends the program with
/// code 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A command line, variant or option that does not make sense. Ends the program with code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// An allocation that a device refused. Whoever cut the work into micro-batches may cut it smaller and try again.
class OutOfDeviceMemory : public Error {
 public:
  using Error::Error;
};

/// Ctrl-C or SIGTERM was seen. Ends the program with code 130; finished rounds are kept.
class Interrupted : public std::exception {
 public:
  [[nodiscard]] const char* what() const noexcept override { return "interrupted"; }
};

/// Throws `Error` with a formatted sentence.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
  throw Error(fmt::format(text, std::forward<Args>(args)...));
}

/// Throws `UsageError` with a formatted sentence.
template <typename... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> text, Args&&... args) {
  throw UsageError(fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace mxlm
