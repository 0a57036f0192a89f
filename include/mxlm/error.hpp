#pragma once

// The exceptions of mxlm. Functions also throw std::bad_alloc, and another std::exception only because of a bug.

#include <exception>
#include <stdexcept>

#if defined(__GNUC__)
#define MXLM_API __attribute__((visibility("default")))
#else
#define MXLM_API
#endif

namespace mxlm {

/// An error that a user can cause. Its text is a sentence that says what was wrong, where, and what to do. The program
/// ends with code 1.
class MXLM_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A command line, variant or option that does not make sense. The program ends with code 2.
class MXLM_API UsageError : public Error {
 public:
  using Error::Error;
};

/// The work was cancelled. Ctrl-C and SIGTERM cancel the program, which ends with code 130; the caller's `cancelled`
/// cancels a function of the library. A journal keeps the finished shards.
class MXLM_API Interrupted : public std::exception {
 public:
  [[nodiscard]] const char* what() const noexcept override { return "interrupted"; }
};

}  // namespace mxlm
